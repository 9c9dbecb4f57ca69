//! Every text is read whole, byte by byte and in pieces of every size, with the same result.

use super::*;

fn language() -> Language {
    Language {
        reasoning: Some(Marks::new("<think>", "</think>")),
        calls: Some(Marks::new("<tool_call>", "</tool_call>")),
    }
}

fn heard(language: &Language, begins: Begins, text: &str, size: usize) -> Vec<Said> {
    let mut speech = Speech::new(language.clone(), begins);
    let mut said = Vec::new();
    let characters: Vec<char> = text.chars().collect();
    for piece in characters.chunks(size) {
        speech.push(&piece.iter().collect::<String>(), &mut said);
    }
    speech.finish(&mut said);
    merged(said)
}

fn merged(said: Vec<Said>) -> Vec<Said> {
    let mut merged: Vec<Said> = Vec::new();
    for part in said {
        match (merged.last_mut(), part) {
            (Some(Said::Reasoning(text)), Said::Reasoning(more))
            | (Some(Said::Answer(text)), Said::Answer(more))
            | (Some(Said::Arguments(text)), Said::Arguments(more)) => text.push_str(&more),
            (_, part) => merged.push(part),
        }
    }
    merged
}

fn check_from(language: &Language, begins: Begins, text: &str, expected: &[Said]) {
    for size in 1..=text.chars().count().max(1) {
        assert_eq!(heard(language, begins, text, size), expected, "{text:?} in pieces of {size}");
    }
}

fn check(text: &str, expected: &[Said]) {
    check_from(&language(), Begins::AtStart, text, expected);
}

fn answer(text: &str) -> Said {
    Said::Answer(text.to_owned())
}

fn reasoning(text: &str) -> Said {
    Said::Reasoning(text.to_owned())
}

fn call(name: &str, arguments: &str) -> [Said; 2] {
    [Said::Call { name: name.to_owned() }, Said::Arguments(arguments.to_owned())]
}

#[test]
fn plain_text_is_an_answer_to_the_last_byte() {
    check("", &[]);
    check("Hé <b>llo</b> <tool", &[answer("Hé <b>llo</b> <tool")]);
    check("2 < 3 \n", &[answer("2 < 3 \n")]);
    let bare = Language::default();
    check_from(&bare, Begins::AtStart, "\n <think>a</think> ", &[answer("\n <think>a</think> ")]);
}

#[test]
fn reasoning_comes_first_or_not_at_all() {
    check("<think>\nhm, 1 < 2\n</think>\n\nyes", &[reasoning("hm, 1 < 2"), answer("yes")]);
    check(" \n<think></think>yes", &[answer("yes")]);
    check("yes <think>no</think>", &[answer("yes <think>no</think>")]);
    check("<think>cut off </thi", &[reasoning("cut off </thi")]);
    check_from(&language(), Begins::InReasoning, "hm\n</think>\nyes", &[reasoning("hm"), answer("yes")]);
}

#[test]
fn calls_are_told_with_their_arguments() {
    let [name, arguments] = call("f", "{\"a\": \"}</tool_call>\\\"\", \"b\": [1, {}]}");
    let text = "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": \"}</tool_call>\\\"\", \"b\": [1, {}]}}\n</tool_call>";
    check(text, &[name.clone(), arguments.clone()]);
    let both = format!("<think>x</think>\n\nLet me see. \n{text}\n{text}\n");
    let expected = [
        reasoning("x"),
        answer("Let me see."),
        name.clone(),
        arguments.clone(),
        name.clone(),
        arguments.clone(),
    ];
    check(&both, &expected);
    // The closing mark was the stop text of the request, or the tokens ran out.
    check(text.strip_suffix("</tool_call>").unwrap(), &[name, arguments]);
    let [name, begun] = call("g", "{\"a\": 1");
    check("<tool_call>{\"name\":\"g\",\"arguments\":{\"a\": 1", &[name, begun]);
}

#[test]
fn calls_in_another_order_are_read_when_they_are_whole() {
    check("<tool_call>{\"arguments\": {\"x\": 1}, \"name\": \"f\"}</tool_call>", &call("f", "{\"x\":1}"));
    check("<tool_call>{\"name\": \"f\", \"parameters\": {}}</tool_call>", &call("f", "{}"));
    check("<tool_call>{\"name\": \"f\", \"arguments\": \"{}\"}</tool_call>", &call("f", "{}"));
    check("<tool_call>{\"name\": \"f\"}", &call("f", "{}"));
}

#[test]
fn what_is_no_call_stays_text() {
    check("<tool_call>\nnot json</tool_call> so", &[answer("<tool_call>\nnot json</tool_call> so")]);
    check("a <tool_call>{\"name\": 1}", &[answer("a<tool_call>{\"name\": 1}")]);
}
