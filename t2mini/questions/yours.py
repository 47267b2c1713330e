"""
Questions of yours: a .jsonl file with `prompt`, `answer` and optionally `match` and `options` in each row.
"""
from .example import Example, normal, to_number


def example_of(row):
    """One JSONL row (dict) -> Example."""
    if not isinstance(row, dict):
        raise ValueError("a row must be an object with `prompt` and `answer`")
    for field in ("prompt", "answer"):
        if not isinstance(row.get(field), (str, int, float)) or not str(row[field]).strip():
            raise ValueError(f"`{field}` is missing or empty")
    match, answer = row.get("match", "exact"), str(row["answer"]).strip()
    if match not in ("number", "exact", "choice", "contains"):
        raise ValueError(f"`match` is {match!r}; it must be number, exact, choice or contains")
    if match == "number" and to_number(answer) is None:
        raise ValueError(f"`match` is number but the answer {answer!r} is not one")
    if match == "exact" and not normal(answer):
        raise ValueError(f"`answer` is {answer!r}: without punctuation nothing is left to compare")
    options = row.get("options", [])
    if match == "choice" and (not isinstance(options, list) or answer not in (str(o).strip() for o in options)):
        raise ValueError("`match` is choice: `options` must be a list of texts that holds the answer")
    return Example(str(row["prompt"]), answer, match, options=tuple(str(o).strip() for o in options))
