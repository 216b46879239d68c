"""Rows of every known form, written out by hand, and the records they must become."""

from __future__ import annotations

import json

import pytest

from accord.data.formats import BadRow, recognise
from accord.data.records import Example, Message, Pair, Prompt, Ranking, Rating, Record, Text, to_row

SKIP = 'mend the row, or leave such rows out with on_error = "skip"'


def system(content: str) -> Message:
    return {"role": "system", "content": content}


def user(content: str) -> Message:
    return {"role": "user", "content": content}


def says(content: str) -> Message:
    return {"role": "assistant", "content": content}


CHAT = [system("Be kind."), user("Hi"), says("Hello"), user("Bye"), says("See you")]
SHAREGPT = [
    {"from": "human", "value": "Weather?"},
    {"from": "function_call", "value": '{"name": "weather"}'},
    {"from": "observation", "value": "rain"},
    {"from": "gpt", "value": "It rains."},
]
TOLD = [user("Weather?"), says('{"name": "weather"}'), {"role": "tool", "content": "rain"}, says("It rains.")]
HH = "\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: Bye\n\nAssistant:"
ODD = "\n\nHuman: Hi\n\nAssistant: One.\n\nAssistant: Two.\n\nHuman: \n\nAssistant:\n\nHuman: Go\n\nAssistant:"
TALK = [user("Hi"), says("Hello"), user("Bye")]
PAIR = Pair(prompt=[user("Q")], chosen="good", rejected="bad")


def example(*messages: Message) -> Example:
    return Example(messages=[*messages], train="last")


FORMS: dict[str, tuple[dict[str, object], Record]] = {
    "messages": ({"messages": CHAT, "tools": "[]", "id": 3}, Example(messages=CHAT)),
    "messages with their prompt": ({"prompt": "Hi", "prompt_id": "x", "messages": CHAT}, Example(messages=CHAT)),
    "messages without an answer": ({"messages": [user("Hi")]}, Prompt(prompt=[user("Hi")])),
    "messages with a label": ({"messages": CHAT, "label": False},
                              Rating(prompt=CHAT[:-1], response="See you", label=False)),
    "messages of parts": ({"messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}, says("Yo")]},
                          Example(messages=[user("Hi"), says("Yo")])),
    "messages with tool calls": (
        {"messages": [user("Weather?"),
                      {"role": "assistant", "content": None, "tool_calls": [
                          {"type": "function", "function": {"name": "weather", "arguments": {"day": 1}}}]},
                      {"role": "tool", "name": "weather", "content": "rain"}, says("It rains.")]},
        Example(messages=[user("Weather?"), says('{"name": "weather", "arguments": {"day": 1}}'),
                          {"role": "tool", "name": "weather", "content": "rain"}, says("It rains.")])),
    "prompt and completion": ({"prompt": "Q", "completion": " A"}, example(user("Q"), says(" A"))),
    "prompt and response": ({"prompt": "Q", "response": "A"}, example(user("Q"), says("A"))),
    "prompt and completion, messages": ({"prompt": [system("S"), user("Q")], "completion": [says("A")]},
                                        example(system("S"), user("Q"), says("A"))),
    "prompt, completion, label": ({"prompt": "Q", "completion": "A", "label": True},
                                  Rating(prompt=[user("Q")], response="A", label=True)),
    "prompt, completion, label, messages": ({"prompt": [user("Q")], "completion": [says("A")], "label": 4},
                                            Rating(prompt=[user("Q")], response="A", label=4.0)),
    "label of a CSV": ({"prompt": "Q", "completion": "A", "label": "True"},
                       Rating(prompt=[user("Q")], response="A", label=True)),
    "pair of texts": ({"prompt": "Q", "chosen": "good", "rejected": "bad"}, PAIR),
    "pair of messages": ({"prompt": [user("Q")], "chosen": [says("good")], "rejected": [says("bad")]}, PAIR),
    "pair with the prompt inside": ({"chosen": [*TALK, says("a")], "rejected": [*TALK, says("b")]},
                                    Pair(prompt=TALK, chosen="a", rejected="b")),
    "pair with an answer that goes on": (
        {"prompt": [user("Q")], "chosen": [says("Wait."), user("?"), says("a")],
         "rejected": [says("Wait."), user("?"), says("b")]},
        Pair(prompt=[user("Q"), says("Wait."), user("?")], chosen="a", rejected="b")),
    "pair with a system column": ({"system": "S", "question": "Q", "chosen": "good", "rejected": "bad"},
                                  Pair(prompt=[system("S"), user("Q")], chosen="good", rejected="bad")),
    "pair with numbers as text": ({"prompt": "Q", "chosen": "a", "rejected": "b", "prob": "0.75", "margin": ""},
                                  Pair(prompt=[user("Q")], chosen="a", rejected="b", prob=0.75)),
    "hh-rlhf": ({"chosen": HH + " Bye.\n", "rejected": HH + "  Stay! "},
                Pair(prompt=TALK, chosen="Bye.", rejected="Stay!")),
    "hh-rlhf with a prompt column": ({"prompt": HH, "chosen": " Bye.", "rejected": " Stay!"},
                                     Pair(prompt=TALK, chosen=" Bye.", rejected=" Stay!")),
    "hh-rlhf, one speaker twice, one turn empty": (
        {"chosen": ODD + " a", "rejected": ODD + " b"},
        Pair(prompt=[user("Hi"), says("One.\n\nTwo."), user("Go")], chosen="a", rejected="b")),
    "UltraFeedback, binarized": (
        {"prompt": "Q", "prompt_id": "0", "chosen": [user("Q"), says("good")], "rejected": [user("Q"), says("bad")],
         "messages": [user("Q"), says("good")], "score_chosen": 8.5, "score_rejected": 7.0},
        Pair(prompt=[user("Q")], chosen="good", rejected="bad", margin=1.5)),
    "UltraFeedback, binarized, a tie": (
        {"prompt": "Q", "chosen": [user("Q"), says("good")], "rejected": [user("Q"), says("bad")],
         "score_chosen": 7.0, "score_rejected": 7.0}, PAIR),
    "UltraFeedback": (
        {"instruction": "Q", "models": ["m"] * 3, "completions": [
            {"response": "a", "overall_score": 6.5, "model": "m"}, {"response": "b", "overall_score": 8},
            {"response": "c", "overall_score": 6.5}]},
        Ranking(prompt=[user("Q")], responses=["a", "b", "c"], ranks=[2, 1, 2])),
    "UltraFeedback, fine-grained": (
        {"instruction": "Q", "completions": [{"response": "a", "fine-grained_score": 4.75, "overall_score": None},
                                             {"response": "b", "fine-grained_score": 2.0, "overall_score": 9.0}]},
        Ranking(prompt=[user("Q")], responses=["a", "b"], ranks=[1, 2])),
    "Alpaca": ({"instruction": "Add.", "input": "1 2", "output": "3", "text": "Below is ..."},
               example(user("Add.\n\n1 2"), says("3"))),
    "Alpaca without input": ({"instruction": "Hi", "input": "", "output": "Yo"}, example(user("Hi"), says("Yo"))),
    "dolly": ({"instruction": "Who?", "context": "Ann did.", "response": "Ann", "category": "closed_qa"},
              example(user("Who?\n\nAnn did."), says("Ann"))),
    "ShareGPT": ({"conversations": SHAREGPT, "tools": "[]"}, Example(messages=TOLD)),
    "ShareGPT with a system column": ({"conversations": SHAREGPT, "system": "S"},
                                      Example(messages=[system("S"), *TOLD])),
    "ShareGPT pair": (
        {"conversations": SHAREGPT[:1], "chosen": {"from": "gpt", "value": "a"},
         "rejected": {"from": "gpt", "value": "b"}}, Pair(prompt=TOLD[:1], chosen="a", rejected="b")),
    "ShareGPT with a label": ({"conversations": SHAREGPT, "label": True},
                              Rating(prompt=TOLD[:-1], response="It rains.", label=True)),
    "guanaco": ({"text": "### Human: Hi\n### Assistant: Hello### Human: Bye### Assistant: See you "},
                Example(messages=[user("Hi"), says("Hello"), user("Bye"), says("See you")])),
    "hh-rlhf as text": ({"text": HH + " See you"}, Example(messages=[*TALK, says("See you")])),
    "winning and losing": ({"prompt": "Q", "winning_response": "good", "losing_response": "bad"}, PAIR),
    "winning and losing of a question": ({"question": "Q", "winning_response": "good", "losing_response": "bad"}, PAIR),
    "prompt": ({"prompt": "Q", "id": 1}, Prompt(prompt=[user("Q")])),
    "prompt, messages": ({"prompt": TALK, "meta": {"topic": "x"}}, Prompt(prompt=TALK, meta={"topic": "x"})),
    "text": ({"text": "Once upon a time."}, Text(text="Once upon a time.")),
    "columns of another form that are null": (
        {"prompt": "Q", "completion": "A", "chosen": None, "rejected": None, "label": None},
        example(user("Q"), says("A"))),
}  # fmt: skip


@pytest.mark.parametrize("name", FORMS)
def test_form(name: str):
    row, expected = FORMS[name]
    assert recognise(row, "here") == expected


@pytest.mark.parametrize(
    "record",
    [
        Text(text="Once."),
        Prompt(prompt=TALK, meta={"topic": "x"}),
        Example(messages=CHAT),
        Example(messages=CHAT, train="last"),
        Pair(prompt=TALK, chosen=" a ", rejected="b\n", prob=0.7, margin=2.0, weight=0.5, source="us", meta={"k": [1]}),
        Pair(prompt=TALK, chosen="a", rejected="a"),
        Ranking(prompt=TALK, responses=["a", "b", "c"], ranks=[1, 2, 1]),
        Rating(prompt=TALK, response="a", label=True),
        Rating(prompt=TALK, response="a", label=3.5),
    ],
    ids=lambda record: type(record).__name__,
)
def test_own_records_come_back_as_they_were(record: Record):
    assert recognise(json.loads(json.dumps(to_row(record))), "here") == record


def pair(**changes: object) -> dict[str, object]:
    return {"prompt": "Q", "chosen": "good", "rejected": "bad", **changes}


BAD: dict[str, tuple[dict[str, object], str, str]] = {
    "empty answer": (pair(chosen=" \n"), "empty_answer", "chosen is empty; it must hold text"),
    "empty last turn": ({"messages": [user("Hi"), says("")]}, "empty_answer",
                        "an assistant's turn is empty; it must hold text"),
    "null answer": (pair(rejected=None), "empty_answer", "rejected is null; it must hold an answer"),
    "empty prompt": (pair(prompt=""), "empty_prompt", "the prompt is empty; it must hold text"),
    "empty text": ({"text": " "}, "empty_text", "text is empty; it must hold text"),
    "no prompt": ({"chosen": "a", "rejected": "b"}, "missing_column",
                  "an answer without a prompt; prompt, instruction, question or conversations must hold it"),
    "two prompts": ({"chosen": "\n\nHuman: A\n\nAssistant: x", "rejected": "\n\nHuman: B\n\nAssistant: y"},
                    "no_common_prompt",
                    "chosen and rejected differ before their last answer; a pair is two answers to one prompt"),
    "another prompt in the answers": (
        pair(chosen=[user("R"), says("a")], rejected=[user("R"), says("b")]), "no_common_prompt",
        "the answer's messages lack the prompt; they must start with it or leave it out"),
    "transcript without an answer": ({"chosen": HH + " x\n\nHuman: y", "rejected": HH + " z"}, "bad_row",
                                     "chosen ends with a human's turn; it must end with the answer"),
    "messages that end with the user": (pair(chosen=[user("Q")]), "bad_row",
                                        "chosen ends with a turn of user; it must end with the answer"),
    "unknown role": ({"messages": [{"role": "usr", "content": "Hi"}]}, "bad_row",
                     "messages[0] has the role 'usr'; known: system, developer, user, human, assistant, gpt, "
                     "function_call, tool, observation, function"),
    "an answer to nothing": ({"messages": [says("Hi")]}, "empty_prompt",
                             "nothing stands before the answer; a prompt must"),
    "no list": ({"messages": "Hi"}, "bad_row", "messages is text; it must be a list"),
    "no messages": ({"messages": []}, "bad_row", "messages is an empty list; it must hold messages"),
    "no object": ({"messages": ["Hi"]}, "bad_row", "messages[0] is text; it must be an object"),
    "no text": ({"prompt": "Q", "completion": 3}, "bad_row",
                "completion is a number; it must be text or a list of messages"),
    "no text in the prompt": (pair(prompt={}), "bad_row", "prompt is an object; it must be text or a list of messages"),
    "picture": ({"messages": [{"role": "user", "content": [{"type": "image"}]}]}, "bad_row",
                "a part of messages[0].content is null; it must be text"),
    "prob out of range": (pair(prob=1.5), "bad_row", "prob is 1.5; it must lie in 0 to 1"),
    "weight below 0": (pair(weight=-1), "bad_row", "weight is -1.0; it must be 0 or more"),
    "margin no number": (pair(margin="much"), "bad_row", "margin is 'much'; it must be a number"),
    "label no number": ({"messages": CHAT, "label": "World"}, "bad_row", "label is 'World'; it must be a number"),
    "train unknown": ({"messages": CHAT, "train": "first"}, "bad_row", "train is 'first'; it must be 'all' or 'last'"),
    "ranks too few": ({"prompt": "Q", "responses": ["a", "b"], "ranks": [1]}, "bad_row",
                      "2 responses with 1 ranks; it must be at least two, with a rank each"),
    "rank 0": ({"prompt": "Q", "responses": ["a", "b"], "ranks": [0, 1]}, "bad_row",
               "ranks are [0, 1]; ranks are whole numbers, 1 is best"),
    "rank 1.5": ({"prompt": "Q", "responses": ["a", "b"], "ranks": [1.5, 1]}, "bad_row",
                 "ranks are [1.5, 1]; ranks are whole numbers, 1 is best"),
    "empty response": ({"prompt": "Q", "responses": ["a", ""], "ranks": [1, 2]}, "empty_answer",
                       "responses[1] is empty; it must hold text"),
    "no completions": ({"instruction": "Q", "completions": []}, "bad_row",
                       "0 responses with 0 ranks; it must be at least two, with a rank each"),
    "misspelt": ({"prompt": "Q", "choosen": "a", "rejected": "b"}, "missing_column",
                 "no known form has the columns prompt, choosen, rejected; chosen is missing of prompt, chosen, "
                 'rejected; say which column it is: map = { chosen = "choosen" }'),
    "half a pair": ({"prompt": "Q", "chosen": "a"}, "missing_column",
                    "no known form has the columns prompt, chosen; rejected is missing of prompt, chosen, rejected; "
                    'say which column it is: map = { rejected = "..." }'),
    "unknown": ({"best": "a", "worst": "b"}, "missing_column",
                "no known form has the columns best, worst; "
                "known: messages | prompt, completion | prompt, chosen, rejected | prompt | text; "
                'say which columns hold what, as in map = { prompt = "question", completion = "reply" }'),
    "nothing": ({}, "missing_column",
                "no known form has the columns (none); "
                "known: messages | prompt, completion | prompt, chosen, rejected | prompt | text; "
                'say which columns hold what, as in map = { prompt = "question", completion = "reply" }'),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_row(name: str):
    row, reason, said = BAD[name]
    with pytest.raises(BadRow) as caught:
        recognise(row, "rows.jsonl:7")
    assert str(caught.value) == f"rows.jsonl:7: {said}; {SKIP}"
    assert caught.value.reason == reason
