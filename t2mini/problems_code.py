"""
Small "write a Python function" problems with hidden tests, for the code expert (stand-in for the paper's MBPP).

What:  `make_code(rng)` draws one problem: a request, a reference solution, and six calls with the values the reference
       returns; `unseen=True` draws from other kinds of function, asked for in other sentences.
Why:   a 135M model is rewarded only where it is sometimes right, so a solution is one expression or up to four lines, and
       eight kinds were taken out of which it got none of 32 sampled answers right, and few or none once trained.
       What it has to learn is to take the constant, the comparison and the name exactly as asked, and to return.
       The calls hit the constant itself, its neighbours and empty input, so that `>` does not pass for `>=`.

Tables: a kind is "kind types parameters | names | descriptions | body"; a line that starts with a space goes on.
        {a} and {b} stand for the arguments, {k} and {m} (numbers), {c} and {d} (texts) for the parameters.
        " ~ " parts descriptions that mean the same, "?" is short for "True if ..., and False otherwise", ";;" is a
        new line. Types: i whole number, p the same but not negative, n 0 to 9; l list of numbers, m the same but never
        empty (and longer than k); s lower-case text, S text with capitals, t words with spaces; w list of words, v the
        same but never empty; d dictionary of numbers, u pair.
"""
import random
import textwrap

from .grade import Example, same_value

RANGES = {"letter": "a e i o u s t r n l c d m p b g".split(), "mark": "- _ / : + = * # | . , ; -- **".split(),
          "sep": ["-", ", ", "_", "/", " and ", ":", "+", " ", "; ", ".", "=", " or ", "*", "#", " | ", "--"],
          "ending": "ok end done yes now too again please today here all not never always soon maybe".split()}


def _table(text):
    """The table's text -> {kind: (types, parameters {name: possible values}, names, descriptions, body)}."""
    kinds = {}
    for line in text.strip().replace("\n ", "").splitlines():
        head, names, texts, body = line.split(" | ")
        kind, types, *given = head.split()
        given = dict(g.split("=") for g in given)
        span = {p: RANGES.get(r) or range(int(r.split("-")[0]), int(r.split("-")[1]) + 1) for p, r in given.items()}
        texts = [f"True if {t[2:]}, and False otherwise" if t[0] == "?" else t for t in texts.split(" ~ ")]
        kinds[kind] = types, span, names.split(), texts, body.replace(" ;; ", "\n")
    return kinds


SEEN = _table("""
add i k=2-59 | add_{k} increase_by_{k} | {a} plus {k} ~ the sum of {a} and {k} | {a} + {k}
subtract i k=2-59 | subtract_{k} minus_{k} | {a} minus {k} ~ {a} decreased by {k} | {a} - {k}
times i k=2-59 | times_{k} multiply_by_{k} | {a} multiplied by {k} ~ {k} times {a} | {a} * {k}
affine i k=2-14 m=1-15 | scale_and_shift transform | {k} times {a}, plus {m} | {k} * {a} + {m}
sum_two ii | add_numbers plus total | the sum of {a} and {b} ~ {a} plus {b} | {a} + {b}
product_two ii | multiply product times | the product of {a} and {b} ~ {a} multiplied by {b} | {a} * {b}
even i | is_even even check_even | ? {a} is even | {a} % 2 == 0
divisible i k=3-39 | divisible_by_{k} check_multiple | ? {a} is divisible by {k} | {a} % {k} == 0
greater i k=2-59 | above_{k} is_greater_than_{k} | ? {a} is greater than {k} ~ ? {a} is more than {k} | {a} > {k}
at_least i k=2-59 | at_least_{k} is_enough | ? {a} is at least {k} ~ ? {a} is {k} or more | {a} >= {k}
between i k=1-11 m=15-39 | in_range is_between | ? {a} is between {k} and {m} (both included) | {k} <= {a} <= {m}
difference ii | abs_diff distance difference | the absolute difference between {a} and {b} | abs({a} - {b})
distance i k=2-59 | distance_to_{k} how_far | the absolute difference between {a} and {k} | abs({a} - {k})
power i k=2-11 | power_{k} to_the_{k} | {a} raised to the power of {k} ~ {a} to the power {k} | {a} ** {k}
remainder p k=3-39 | mod_{k} remainder | the remainder when {a} is divided by {k} | {a} % {k}
quotient p k=2-29 | groups_of_{k} int_divide | {a} divided by {k}, rounded down to a whole number | {a} // {k}
larger ii | larger bigger maximum_of_two | the larger of {a} and {b} ~ the maximum of {a} and {b} | max({a}, {b})
at_most i k=5-59 | cap_at_{k} limit | the smaller of {a} and {k} ~ the minimum of {a} and {k} | min({a}, {k})
clamp i k=1-11 m=15-29 | clamp restrict | {k} if {a} is below {k}, {m} if {a} is above {m}, otherwise {a}
  | max({k}, min({a}, {m}))
sign i | sign signum get_sign | 1 if {a} is positive, -1 if {a} is negative, and 0 if {a} is zero
  | if {a} > 0: ;;     return 1 ;; return -1 if {a} < 0 else 0
factorial n | factorial fact calculate_factorial | the factorial of {a}
  | result = 1 ;; for i in range(2, {a} + 1): ;;     result *= i ;; return result
sum_to n | sum_to_n triangle sum_up_to | the sum of all whole numbers from 1 to {a} | sum(range(1, {a} + 1))
mean_two ii | average_of_two midpoint mean | the average of {a} and {b} | ({a} + {b}) / 2
reverse_text s | reverse_string backwards reverse | the string {a} reversed ~ {a} written backwards | {a}[::-1]
upper S | to_upper shout make_upper | the string {a} in upper case ~ {a} in capital letters | {a}.upper()
lower S | to_lower whisper make_lower | the string {a} in lower case ~ {a} in small letters | {a}.lower()
repeat s k=2-24 | repeat_{k} repeat_text | the string {a} repeated {k} times | {a} * {k}
starts s c=letter | starts_with check_start | ? the string {a} starts with the letter {c!r} | {a}.startswith({c!r})
ends s c=letter | ends_with check_end | ? the string {a} ends with the letter {c!r} | {a}.endswith({c!r})
count_letter s c=letter | count_letter how_many | how many times {c!r} occurs in the string {a} | {a}.count({c!r})
first_chars s k=2-9 | first_{k} prefix | the first {k} characters of the string {a} | {a}[:{k}]
last_chars s k=2-9 | last_{k} suffix | the last {k} characters of the string {a} | {a}[-{k}:]
join_two ss c=sep | join_strings combine | the string {a}, followed by {c!r}, followed by {b} | {a} + {c!r} + {b}
append_text s c=ending | add_suffix finish | the string {a} with {c!r} added at the end | {a} + {c!r}
prepend_text s c=ending | add_prefix begin | the string {a} with {c!r} added at the front | {c!r} + {a}
palindrome s | is_palindrome palindrome same_backwards | ? the string {a} is a palindrome | {a} == {a}[::-1]
word_count t | word_count count_words num_words | the number of words in the string {a} | len({a}.split())
longer s k=2-8 | longer_than_{k} is_long | ? the string {a} has more than {k} characters | len({a}) > {k}
split S c=mark | split_text parts | a list of the parts of the string {a} separated by {c!r} | {a}.split({c!r})
join_words w c=sep | join_words join_all | a string of the words in {a} with {c!r} between them | {c!r}.join({a})
length l | length count_items size | the number of elements in the list {a} | len({a})
sum_list l | sum_list total add_all | the sum of all numbers in the list {a} | sum({a})
max_list m | largest find_max maximum | the largest number in the list {a} | max({a})
last m | last_element get_last last_item | the last element of the list {a} | {a}[-1]
at_index m k=0-7 | item_{k} get_element | the element at index {k} of the list {a} (counting starts at 0) | {a}[{k}]
sum_above l k=2-39 | sum_above_{k} sum_big | the sum of all numbers above {k} in the list {a}
  | sum(v for v in {a} if v > {k})
count_equal l k=2-39 | count_{k}s count_equal | how many times {k} occurs in the list {a} | {a}.count({k})
count_above l k=2-39 | count_above_{k} count_big | how many numbers above {k} the list {a} has
  | sum(v > {k} for v in {a})
evens l | evens filter_even only_even | a list of the even numbers in the list {a} | [v for v in {a} if v % 2 == 0]
keep_below l k=2-39 | below_{k} keep_small | a list of the numbers below {k} in the list {a}
  | [v for v in {a} if v < {k}]
times_each l k=2-39 | times_{k}_each scale_all | a list of all numbers in {a}, each multiplied by {k}
  | [v * {k} for v in {a}]
add_each l k=2-39 | add_{k}_to_all shift_all | a list with {k} added to each number in {a} | [v + {k} for v in {a}]
reverse_list l | reverse_list reverse backwards | a list with the elements of the list {a} in reverse order | {a}[::-1]
take l k=2-5 | first_{k} take_{k} | a list of the first {k} elements of the list {a} | {a}[:{k}]
has_item l k=2-39 | has_{k} contains_{k} | ? {k} is in the list {a} | {k} in {a}
mean m | average mean get_average | the average of the numbers in the list {a} | sum({a}) / len({a})
lengths w | word_lengths lengths sizes | a list with the length of each word in the list {a} | [len(w) for w in {a}]
longest v | longest_word find_longest | the longest word in the list {a} (the first one if tied) | max({a}, key=len)
swap u | swap swap_pair exchange | a tuple with the two elements of the tuple {a} swapped | ({a}[1], {a}[0])
sorted_keys d | sorted_keys keys_in_order get_keys | a sorted list of the keys of the dictionary {a} | sorted({a})
lookup ds k=2-29 | find get_or_{k} | the value of {b} in the dictionary {a}, or {k} if it is missing | {a}.get({b}, {k})
zip ll | pair_up zip_lists pairs | a list of tuples that pair the elements of the lists {a} and {b}, as long as the
  shorter list | list(zip({a}, {b}))
""")
UNSEEN = _table("""
from_constant i k=10-59 | left_from_{k} remaining | {k} minus {a} | {k} - {a}
square_plus i k=2-49 | square_plus_{k} curve | the square of {a}, plus {k} | {a} ** 2 + {k}
both_above ii k=2-39 | both_above_{k} both_big | ? {a} and {b} are both greater than {k} | {a} > {k} and {b} > {k}
percent p k=3-59 | percent_{k} take_share | {k} percent of {a} | {a} * {k} / 100
negate i | negate opposite flip_sign | {a} with the opposite sign | -{a}
odd i | is_odd odd check_odd | ? {a} is odd | {a} % 2 != 0
half i | half halve half_of | half of {a} | {a} / 2
perimeter pp | perimeter fence_length | the perimeter of a rectangle with sides {a} and {b} | 2 * ({a} + {b})
miles p | to_miles km_to_miles convert | the distance of {a} kilometers in miles (1 kilometer is 0.62 miles)
  | {a} * 0.62
digit_sum p | digit_sum sum_digits add_digits | the sum of the decimal digits of {a} | sum(int(ch) for ch in str({a}))
without_letter s c=letter | remove_letter drop_letter | the string {a} with all letters {c!r} removed
  | {a}.replace({c!r}, '')
capitalize s | capitalize_first capital_start | the string {a} with its first letter in upper case | {a}.capitalize()
swap_case S | swap_case invert_case | the string {a} with upper case and lower case exchanged | {a}.swapcase()
wrap s c=mark | wrap surround | the string {a} with {c!r} in front of it and {c!r} behind it | {c!r} + {a} + {c!r}
is_upper S | is_upper all_caps is_shouting | ? all letters in the string {a} are upper case | {a}.isupper()
smallest m | smallest find_min lowest | the smallest number in the list {a} | min({a})
first_item m | first_element get_first first_item | the first element of the list {a} | {a}[0]
squares l | squares square_all square_each | a list with the square of every number in {a} | [v ** 2 for v in {a}]
spread m | spread value_range | the difference between the largest and the smallest number in {a} | max({a}) - min({a})
product_list m | product_of_list multiply_list prod_all | the product of all numbers in the list {a}
  | result = 1 ;; for v in {a}: ;;     result *= v ;; return result
drop l k=1-4 | drop_{k} skip_first | a list of the elements of the list {a} without the first {k} | {a}[{k}:]
index mi | find_index position locate | the index of the first {b} in the list {a}, or -1 if {b} is not in the list
  | {a}.index({b}) if {b} in {a} else -1
cumulative l | cumulative_sums running_total prefix_sums | a list of the running totals of the list {a} (each element
  plus all elements before it) | [sum({a}[:i + 1]) for i in range(len({a}))]
is_sorted l | is_sorted ascending | ? the numbers in the list {a} never decrease from left to right | {a} == sorted({a})
common ll | common intersection shared | a list of the elements of the list {a} that are also in {b}
  | [v for v in {a} if v in {b}]
remove_value l k=2-39 | without_{k} remove_{k} | a list of the numbers in {a} that are not {k}
  | [v for v in {a} if v != {k}]
all_below l k=5-39 | all_below_{k} all_small | ? all numbers in {a} are less than {k} | all(v < {k} for v in {a})
words_with w c=letter | starting_words with_initial | a list of the words in {a} that start with {c!r}
  | [w for w in {a} if w.startswith({c!r})]
values_sum d | total_value sum_values add_values | the sum of the values of the dictionary {a} | sum({a}.values())
""")
GENERIC = "f g func solve compute helper process my_function run".split()
FRAMES = [  # seen
    "Write a Python function `{name}({args})` that returns {what}.",
    "Define a function called {name} with {parameters} in Python. It should return {what}.",
    "Please write the Python function {name}({args}). It returns {what}.",
    "In Python, implement `{name}({args})`, which should return {what}.",
    "I need a Python function named {name} that takes {parameters} and returns {what}.",
    "Can you write me a function {name}({args}) in Python? It must return {what}.",
    "Create a Python function `{name}` with {parameters}. The function returns {what}.",
    "Write {name}({args}) in Python. The return value is {what}."]
FRAMES_UNSEEN = [
    "Give me Python code for a function `{name}({args})` that computes {what}.",
    "Python exercise: code `{name}({args})` so that its result is {what}.",
    "Using Python, make a function {name} of {parameters}. Its output is {what}.",
    "Complete this Python function: def {name}({args}). It gives back {what}."]
ARGUMENTS = {"i": "x;n;number;value;num", "p": "x;n;number;amount;num", "n": "n;num;limit", "s": "s;text;word",
             "S": "s;text;phrase", "t": "s;text;sentence", "l": "numbers;nums;xs;values", "m": "numbers;nums;xs;values",
             "w": "words;strings", "v": "words;strings", "d": "d;data;table", "u": "pair;t;point",
             "ii": "a b;x y;m n;p q", "pp": "a b;x y;width height", "ss": "a b;s t;left right", "ll": "a b;xs ys",
             "dd": "a b;d1 d2;old new", "mi": "numbers x;values target;items n", "ds": "d key;data word;table s"}
WORDS = """sun apple tree level banana noon sky river it radar python be street umbrella carpet dog abba go lemon
 grass cup mountain bottle elephant plane ice orange night rose taxi castle pool""".split()


def _value(rng, code, par, i):
    """The argument of the i-th call: first what is special for this type and these parameters, then anything."""
    numbers, letter = [v for v in par.values() if isinstance(v, int)], par.get("c", "")
    if code in "ip":
        edges = list(dict.fromkeys(numbers + [v + 1 for v in numbers] + [2 * v for v in numbers] + [0, 1]))
        value = edges[i] if i < min(4, len(edges)) else rng.choice([8, 16, 64] + [rng.randint(2, 70)] * 3)
        return -value if code == "i" and i == 4 else value
    if code == "n":
        return i if i < 2 else rng.randint(2, 9)
    if code in "lm":
        edges = [v + step for v in numbers for step in (0, 1, -1)]
        pool = edges + [rng.randint(-9, 30) for _ in range(5)]
        least = par.get("k", 0) + 1 if code == "m" else 0
        value = [rng.choice(pool) for _ in range(least if i == 0 else least + rng.randint(1, 5))]
        if i == 3 and numbers:                                              # all at most k, and k itself
            value = [v for v in value if v <= max(numbers)] + numbers * (least + 1)
        return sorted(value) if i == 2 else value + edges * (i == 1)
    if code in "sS":
        word = rng.choice(WORDS)
        value = [word * (code == "S" or rng.random() < 0.4), letter + word, word + letter,
                 rng.choice(["level", "noon", "radar", "abba"]), letter.join(rng.sample(WORDS, 2)),
                 word + rng.choice(WORDS)][i]
        return value if code == "s" else rng.choice([value.upper(), value.title(), value.title() + word.upper()])
    if code in "twv":
        value = [letter * (letter.isalpha() and rng.random() < 0.4) + w for w in rng.sample(WORDS, 5)]
        value = value[:i if code == "w" else max(1, i)]
        return " ".join(value) if code == "t" else value
    if code == "d":
        return {rng.choice(WORDS[:6]): rng.randint(-5, 40) for _ in range(i)}
    return rng.randint(-9, 9), rng.randint(10, 20)


def _calls(rng, function, types, par):
    """Seven different calls with their values; drawn again while a constant or an argument would pass the first six."""
    for _ in range(1000):
        calls = []
        for i in [0, 1, 2, 3, 4, 5, 5]:
            turn = i, rng.randrange(6) if i else 1
            args = [_value(rng, code, par, at) for code, at in zip(types, turn)]
            if types in ("ds", "mi") and args[0] and i % 2:
                args[1] = rng.choice(list(args[0]))                         # search for something that is there
            calls.append((tuple(args), function(*args)))
        guesses = [lambda args: calls[0][1]] + [lambda args, j=j: args[j] for j in range(len(types))]
        passed = any(all(same_value(guess(args), value) for args, value in calls[:6]) for guess in guesses)
        if not passed and len({repr(args) for args, _ in calls}) == 7:
            return calls
    raise ValueError(f"found no calls that tell {function.__name__} with {par} from a constant")


def make_code(rng: random.Random, unseen: bool = False) -> Example:
    """One problem; its key is the kind with its parameters (without any: with the function's name)."""
    table = UNSEEN if unseen else SEEN
    kind = rng.choice(list(table))
    types, span, names, texts, body = table[kind]
    par = {p: rng.choice(values) for p, values in span.items()}
    name = rng.choice(GENERIC if rng.random() < 0.25 else names).format(**par)
    args = rng.choice(ARGUMENTS[types].split(";")).split()
    fill = {**par, **dict(zip("ab", args))}
    body = (body if "return" in body else "return " + body).format(**fill)
    source = f"def {name}({', '.join(args)}):\n{textwrap.indent(body, '    ')}\n"
    scope = {}
    exec(source, scope)                                                     # our own text, from the table above
    *calls, (shown, value) = _calls(rng, scope[name], types, par)
    prompt = rng.choice(FRAMES_UNSEEN if unseen else FRAMES).format(
        name=name, args=", ".join(args), parameters=f"the parameter{'s' * (len(args) > 1)} {' and '.join(args)}",
        what=rng.choice(texts).format(**fill))
    example = f" For example, {name}({', '.join(map(repr, shown))}) is {value!r}."
    if rng.random() < 0.3 and len(example) < 110:
        prompt += example
    key = "/".join([kind, *(map(str, par.values()) if par else [name])])
    return Example(prompt, source, "code", kind, key, calls=tuple(calls), name=name)
