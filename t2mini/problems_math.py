"""
Arithmetic word problems of one and two steps, for the math expert (stand-in for the paper's GSM8K).

What:  `make_math(rng)` draws one problem; `unseen=True` draws from other situations, told in other words.
Why:   a 135M model is rewarded only where it is sometimes right, so numbers are small (RANGES, TWO_STEP and the
       constraints tune the difficulty): what is hard is to see which operation, or which two, the story asks for.
       Differences stay below 10: this model is right about 9 + 8 and 6 x 7 long before it is right about 13 - 9.

Tables: a line is "kind | answer | constraint | wording ~ other wording". {a} {b} {c} are numbers, {n} {m} names,
        {x} a thing. The answer is arithmetic on a, b, c, evaluated at import from this file only.
"""
from .grade import Example

RANGES = {"a": (3, 15), "b": (2, 10), "c": (2, 6)}       # small sums, and products of at most 60
TWO_STEP = 0.2                                           # share of two-step problems

SEEN = """
1step/more | a + b | 1 | {n} has {a} {x}. {m} gives {n} {b} more. How many {x} does {n} have now? ~ {n} had {a} {x} and then found {b} more {x}. How many {x} does {n} have in total?
1step/buy | a + b | 1 | {n} owns {a} {x} and buys {b} {x} at the shop. How many {x} does {n} own now? ~ On Monday {n} buys {a} {x}. On Tuesday {n} buys {b} {x}. How many {x} does {n} buy in all?
1step/two_people | a + b | 1 | {n} has {a} {x} and {m} has {b} {x}. How many {x} do they have together? ~ {n} collected {a} {x}. {m} collected {b} {x}. How many {x} did they collect altogether?
1step/arrive | a + b | 1 | There are {a} people on a bus. At the next stop {b} more people get on. How many people are on the bus? ~ {a} children are playing in a park and {b} more children join them. How many children are in the park now?
1step/grow | a + b | 1 | A garden has {a} roses. {n} plants {b} more roses. How many roses does the garden have? ~ {n} wrote {a} letters last week and {b} letters this week. How many letters did {n} write?
1step/join | a + b | 1 | {n} puts {a} {x} into a basket and {m} puts {b} {x} into it. How many {x} are in the basket? ~ There are {a} dogs and {b} cats in a house. How many animals are in the house?
1step/run | a + b | 1 | {n} ran {a} laps in the morning and {b} laps in the evening. How many laps did {n} run? ~ {n} caught {a} fish and {m} caught {b} fish. How many fish did they catch?
1step/give_away | a - b | 10 >= a > b + 1 | {n} has {a} {x} and gives {b} of them to {m}. How many {x} does {n} have left? ~ {n} had {a} {x}. {n} gave {m} {b} {x}. How many {x} are left?
1step/lose | a - b | 10 >= a > b + 1 | {n} had {a} {x} but lost {b} of them. How many {x} remain? ~ There were {a} {x} in a box. {n} took {b} of them out. How many {x} are still in the box?
1step/eat | a - b | 10 >= a > b + 1 | There are {a} cookies on a plate. {n} eats {b} of them. How many cookies are left? ~ {n} baked {a} muffins and the family ate {b}. How many muffins are left?
1step/sold | a - b | 10 >= a > b + 1 | A shop has {a} {x} and sells {b} of them. How many {x} does the shop still have? ~ {n} wants to sell {a} {x} and has sold {b} so far. How many {x} are still to be sold?
1step/boxes | b * c | 1 | {n} has {c} boxes with {b} {x} in each box. How many {x} does {n} have? ~ There are {b} {x} in every bag. {n} buys {c} bags. How many {x} is that?
1step/shelves | b * c | 1 | A shelf holds {b} {x}. How many {x} do {c} shelves hold? ~ {n} puts {b} {x} on each of {c} tables. How many {x} does {n} need?
1step/price | b * c | 1 | One of the {x} costs {b} coins. {n} buys {c} of them. How many coins does {n} pay? ~ {n} earns {b} coins for each hour of work and works {c} hours. How many coins does {n} earn?
1step/each_day | b * c | 1 | {n} makes {b} {x} every day. How many {x} does {n} make in {c} days? ~ Every day for {c} days, {n} draws {b} pictures. How many pictures does {n} draw?
1step/teams | b * c | 1 | There are {c} teams with {b} players each. How many players are there? ~ {c} buses carry {b} people each. How many people do they carry?
1step/trays | b * c | 1 | {n} bakes {c} trays of {b} cookies. How many cookies does {n} bake? ~ Each of {c} children has {b} {x}. How many {x} do the children have?
1step/weeks | b * c | 1 | {n} plays {b} games every week. How many games does {n} play in {c} weeks? ~ A hen lays {b} eggs a week. How many eggs does it lay in {c} weeks?
1step/share | b | 1 | {n} shares {b*c} {x} equally among {c} friends. How many {x} does each friend get? ~ {b*c} {x} are split into {c} equal groups. How many {x} are in each group?
1step/fill | b | 1 | {n} has {b*c} {x} and puts {c} of them in each bag. How many bags does {n} fill? ~ A box holds {c} {x}. How many boxes are needed for {b*c} {x}?
2step/get_and_give | a + b - c | 1 | {n} has {a} {x}. {m} gives {n} {b} more, and then {n} loses {c}. How many {x} does {n} have now? ~ {n} had {a} {x}, bought {b} more and gave {c} to {m}. How many {x} does {n} have?
2step/give_and_get | a - b + c | a > b | {n} has {a} {x}, gives {b} to {m} and then finds {c} more. How many {x} does {n} have? ~ There were {a} birds on a tree. {b} flew away and {c} came back. How many birds are on the tree?
2step/give_twice | a - b - c | a > b + c | {n} had {a} {x}. {n} gave {b} to {m} and lost {c}. How many {x} are left? ~ Out of {a} {x}, {n} uses {b} on Monday and {c} on Tuesday. How many {x} are left?
2step/total_of_three | a + b + c | 1 | {n} picked {a} apples, {b} pears and {c} plums. How many fruits did {n} pick? ~ {n} has {a} red, {b} blue and {c} green {x}. How many {x} does {n} have?
2step/boxes_and_loose | b * c + a | 1 | {n} has {c} boxes of {b} {x} and {a} loose {x}. How many {x} does {n} have in all? ~ There are {c} bags with {b} {x} each, and {a} more {x} on the floor. How many {x} are there?
2step/boxes_minus | b * c - a | b * c > a | {n} buys {c} packs of {b} {x} and gives away {a} {x}. How many {x} does {n} keep? ~ {c} trays hold {b} eggs each. {a} eggs are broken. How many eggs are whole?
2step/more_than | a + a + b | 1 | {n} has {a} {x}. {m} has {b} more {x} than {n}. How many {x} do they have together? ~ {n} read {a} books. {m} read {b} more than {n}. How many books did they read together?
2step/fewer_than | a + a - b | a > b | {n} has {a} {x}. {m} has {b} fewer {x} than {n}. How many {x} do they have together? ~ {n} sold {a} {x} and {m} sold {b} fewer. How many {x} did they sell together?
2step/twice | 3 * b | 1 | {n} has {b} {x}. {m} has twice as many. How many {x} do they have together? ~ On Monday {n} made {b} {x}, and on Tuesday twice as many. How many {x} did {n} make in the two days?
2step/share_sum | b | 1 | {n} has {b*c-2} {x} and gets 2 more. {n} shares them equally among {c} friends. How many {x} does each friend get? ~ {n} and {m} put {b*c-2} {x} and 2 {x} together and make {c} equal piles. How many {x} are in each pile?
2step/pay_two | b * c + a | 1 | {n} buys {c} {x} for {b} coins each and a bag for {a} coins. How many coins does {n} spend? ~ {n} earns {b} coins an hour. {n} works {c} hours and gets {a} coins extra. How many coins does {n} get?
2step/change | 50 - b * c | b * c < 48 | {n} has 50 coins and buys {c} {x} for {b} coins each. How many coins does {n} have left? ~ {n} pays for {c} {x} at {b} coins each with 50 coins. How many coins does {n} get back?
2step/per_day_left | b * c - 2 * c | b > 3 | {n} has {b*c} {x} and uses {c} each day. How many {x} are left after 2 days? ~ A jar holds {b*c} {x}. On each of 2 days {n} takes {c} of them. How many {x} are left?
2step/two_groups | a + b * 2 | 1 | There are {a} {x} in one box, and {b} {x} in each of 2 other boxes. How many {x} are there? ~ {n} brings {a} {x}. {m} and a friend bring {b} {x} each. How many {x} do they bring?
"""

UNSEEN = """
1step/age_later | a + b | 1 | {n} is {a} years old. How old will {n} be in {b} years? ~ Today {n} turns {a}. What will be the age of {n} after {b} more years?
1step/how_many_more | a - b | a > b + 1 | {n} scored {a} points and {m} scored {b} points. How many more points did {n} score? ~ A rope is {a} meters long and a stick is {b} meters long. By how many meters is the rope longer?
1step/temperature | b - a | a != b | In the morning it was {b} degrees. Then it got {a} degrees colder. What is the temperature now? ~ It is {b} degrees in the valley, and on the mountain {a} degrees less. How many degrees is it on the mountain?
1step/distance | b * c | 1 | A train travels {b} kilometers every minute. How far does it get in {c} minutes? ~ {n} walks {b} miles each hour. What distance is that after {c} hours?
1step/seats | b * c | 1 | A hall has {c} rows of {b} seats. What is the number of seats? ~ In a garden stand {c} lines of {b} trees. What is the number of trees?
1step/area | b * c | 1 | A rectangle is {b} cm long and {c} cm wide. What is its area in square cm? ~ What is the area of a floor that measures {b} by {c} meters?
1step/pages | b | 1 | A book has {b*c} pages. {n} reads {c} pages a day. After how many days is the book finished? ~ {n} must swim {b*c} laps and swims {c} each morning. How many mornings does that take?
1step/time | a + b | 1 | A movie starts {a} minutes from now and the ads take {b} minutes more. In how many minutes does the film begin? ~ The oven needs {a} minutes to warm up and the bread {b} minutes to bake. How many minutes is that?
1step/weight | a - b | a > b + 1 | A full basket weighs {a} kg. The empty basket weighs {b} kg. What do the contents weigh in kg? ~ A dog weighed {a} kg and got {b} kg lighter. What does the dog weigh?
2step/perimeter | 2 * b + 2 * c | 1 | A rectangle is {b} cm long and {c} cm wide. What is its perimeter in cm? ~ How many meters of fence go around a field of {b} by {c} meters?
2step/average | b | b > c + 1 | {n} got {b-c} points in one game and {b+c} points in the next. What is the average? ~ What is the mean of {b-c} and {b+c}?
2step/recipe | b * c + a | 1 | A cake takes {b} cups of flour. {n} bakes {c} cakes and needs {a} cups more for bread. How many cups of flour is that? ~ Each guest drinks {b} glasses, and there are {c} guests. {n} adds {a} spare glasses. How many glasses is that?
2step/age_then | a - b + c | a > b + 1 | {n} is {a}. {m} is {b} years younger. How old will {m} be in {c} years? ~ {m} was born {b} years after {n}, who is {a} now. What age will {m} reach {c} years from now?
2step/dollars | 2 * a - b | 2 * a > b | A ticket costs ${a}. {n} buys 2 tickets and has a coupon that takes ${b} off. How many dollars does {n} pay? ~ {n} saves ${a} a week for 2 weeks and spends ${b}. How many dollars does {n} have?
2step/train | a - b + c | a > b | A train carries {a} passengers. At the station {b} step out and {c} step in. What is the number of passengers now? ~ An elevator with {a} riders lets {b} out and {c} in. What is the number of riders?
2step/score | b * c - a | b * c > a | In a game each goal is worth {b} points. {n} makes {c} goals and is fined {a} points. What is the score of {n}? ~ Every right answer earns {b} points. {n} gets {c} right and loses {a} points for being late. What is the result?
2step/hike | a + b + c | 1 | {n} hikes {a} miles on Friday, {b} on Saturday and {c} on Sunday. What distance is that? ~ Three parcels weigh {a}, {b} and {c} kg. What do they weigh together?
"""
NAMES = ("Tom Anna Ben Lisa Omar Mia Sam Nora Leo Emma Raj Kate Max Zoe Ivan Ella Hugo Lucy Adam Sara Paul Rosa Finn Jane",
         "Yuki Pedro Greta Amir Olga Kofi Ingrid Tariq Bella Mateo Freya Dmitri Aisha Felix Chen Marta")
THINGS = "apples pencils marbles stickers books balls stamps shells buttons coins cards flowers stones toys beads cups " \
         "hats candies ribbons keys oranges crayons badges spoons".replace("coins", "medals").split()


def _table(text):
    """-> list of (kind, answer code, constraint code, wordings)."""
    rows = [line.split(" | ") for line in text.strip().splitlines()]
    return [(kind, compile(answer, kind, "eval"), compile(rule, kind, "eval"), told.split(" ~ "))
            for kind, answer, rule, told in rows]


POOLS = {False: _table(SEEN), True: _table(UNSEEN)}


def make_math(rng, unseen=False):
    """One word problem. The key is the kind with its numbers, so a split holds situations that no other split has."""
    step = "2step/" if rng.random() < TWO_STEP else "1step/"
    kind, answer, rule, told = rng.choice([t for t in POOLS[unseen] if t[0].startswith(step)])
    while True:
        v = {k: rng.randint(*span) for k, span in RANGES.items()}
        if eval(rule, {}, v):
            break
    n, m = rng.sample(NAMES[unseen].split(), 2)
    words = {**v, "n": n, "m": m, "x": rng.choice(THINGS),
             **{e: eval(e, {}, v) for e in ("b*c", "b*c-2", "b-c", "b+c")}}
    text = rng.choice(told)
    for name, value in words.items():
        text = text.replace("{" + name + "}", str(value))
    used = " ".join(str(v[k]) for k in "abc")
    return Example(text, str(eval(answer, {}, v)), "number", kind, f"{kind} {used}")
