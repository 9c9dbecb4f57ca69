//! The chat at a terminal.

use std::io::{Write, stdout};
use std::sync::Arc;

use protocol::{Chat, Inference, Message, Prompt, Refusal};
use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;
use tokio::runtime::Runtime;

use super::answer::{Ending, Form, Printer, follow};
use super::exit::told;
use super::interrupts::Interrupts;
use super::run::{Asking, Style};
use super::{Exit, Talk};

const HELP: &str = "\
/help           this text
/reset          forget the conversation
/system TEXT    set the system message (without a text: remove it) and start over
/quit           leave; so do Ctrl-D and Ctrl-C at an empty line
Ctrl-C stops the answer that is being written.";

/// What a typed line means.
#[derive(Debug, PartialEq, Eq)]
enum Line<'a> {
    Empty,
    Say(&'a str),
    Help,
    Reset,
    System(Option<&'a str>),
    Quit,
    Unknown(&'a str),
}

fn understand(line: &str) -> Line<'_> {
    let line = line.trim();
    let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let rest = rest.trim();
    match word {
        "" => Line::Empty,
        "/help" | "/?" => Line::Help,
        "/reset" => Line::Reset,
        "/system" => Line::System(Some(rest).filter(|text| !text.is_empty())),
        "/quit" | "/exit" => Line::Quit,
        _ if word.starts_with('/') => Line::Unknown(word),
        _ => Line::Say(line),
    }
}

/// What was said so far.
#[derive(Debug, Default, PartialEq)]
struct Conversation {
    system: Option<String>,
    turns: Vec<Message>,
}

impl Conversation {
    /// The conversation with one more thing said by the user.
    fn with(&self, said: &str) -> Chat {
        let system = self.system.iter().map(|text| Message::text("system", text.as_str()));
        let messages =
            system.chain(self.turns.iter().cloned()).chain([Message::text("user", said)]).collect();
        Chat { messages, ..Chat::default() }
    }

    fn keep(&mut self, said: &str, answer: String) {
        self.turns.extend([Message::text("user", said), Message::text("assistant", answer)]);
    }
}

/// Talks until the person leaves.
pub(super) fn chat(
    runtime: &Runtime,
    inference: &Arc<dyn Inference>,
    asking: &Asking,
    talk: Talk,
) -> anyhow::Result<Exit> {
    let mut editor = DefaultEditor::new()?;
    let mut interrupts = runtime.block_on(async { Interrupts::listen() })?;
    let mut conversation = Conversation { system: asking.system.clone(), turns: Vec::new() };
    if talk == Talk::Normal {
        eprintln!("Type a message, or /help. Ctrl-D leaves.");
    }
    let mut leaving = false;
    loop {
        let line = match editor.readline("> ") {
            Ok(line) => line,
            Err(ReadlineError::Eof) => return Ok(Exit::Done),
            Err(ReadlineError::Interrupted) if leaving => return Ok(Exit::Done),
            Err(ReadlineError::Interrupted) => {
                leaving = true;
                eprintln!("(Ctrl-C again or Ctrl-D leaves)");
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        leaving = false;
        editor.add_history_entry(line.trim()).ok();
        match understand(&line) {
            Line::Empty => {}
            Line::Help => eprintln!("{HELP}"),
            Line::Quit => return Ok(Exit::Done),
            Line::Unknown(word) => eprintln!("{word} is not a command; /help lists them"),
            Line::Reset => {
                conversation.turns.clear();
                eprintln!("(forgotten)");
            }
            Line::System(text) => {
                conversation = Conversation { system: text.map(str::to_owned), turns: Vec::new() };
            }
            Line::Say(said) => {
                let ways = (stdout(), interrupts.next());
                let answering = answer(inference, asking, &mut conversation, said, ways);
                if let Err(error) = runtime.block_on(answering) {
                    eprintln!("error: {}{}", told(&error), advice(&error));
                }
            }
        }
    }
}

/// Answers one message and remembers both, unless the request was refused or failed.
async fn answer<W: Write>(
    inference: &Arc<dyn Inference>,
    asking: &Asking,
    conversation: &mut Conversation,
    said: &str,
    (out, stop): (W, impl Future<Output = ()>),
) -> anyhow::Result<()> {
    let prompt = match asking.style() {
        Style::Raw => Prompt::Text(said.to_owned()),
        Style::Chat => Prompt::Chat(conversation.with(said)),
    };
    let generation = inference.generate(asking.request(prompt)).await?;
    let answer = follow(generation, &mut Printer::new(Form::Text, out), stop).await?;
    if answer.ending == Ending::Interrupted {
        eprintln!("(stopped)");
    }
    conversation.keep(said, answer.text);
    Ok(())
}

/// What to do about an error in a chat, where there is something.
fn advice(error: &anyhow::Error) -> &'static str {
    match error.downcast_ref() {
        Some(Refusal::ContextLength { .. }) => "\n/reset forgets the conversation",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use futures::executor::block_on;
    use protocol::scripted::{Script, Scripted};
    use protocol::{Content, Failure};

    use super::*;

    #[test]
    fn lines() {
        let check = |line: &str, meaning: Line<'_>| assert_eq!(understand(line), meaning, "{line:?}");
        check("", Line::Empty);
        check("   ", Line::Empty);
        check(" hello there ", Line::Say("hello there"));
        check("/help", Line::Help);
        check("/reset", Line::Reset);
        check("/system  be brief ", Line::System(Some("be brief")));
        check("/system", Line::System(None));
        check("/quit", Line::Quit);
        check("/dance now", Line::Unknown("/dance"));
        check("what is /help?", Line::Say("what is /help?"));
    }

    #[test]
    fn refused_and_failed_messages_are_not_kept() {
        let full = Refusal::ContextLength { prompt_tokens: 9, max_tokens: None, context: 8 };
        let scripted = Scripted::new()
            .then(Script::text(&["hel", "lo"]))
            .then(Script::refuse(full))
            .then(Script::new().started().say("ha").fail(Failure::ShuttingDown))
            .then(Script::text(&["bye"]));
        let inference: Arc<dyn Inference> = Arc::new(scripted.clone());
        let (asking, mut conversation, mut out) = (Asking::default(), Conversation::default(), Vec::new());
        for (said, fine) in [("one", true), ("two", false), ("three", false), ("four", true)] {
            let ways = (&mut out, pending());
            let answered = block_on(answer(&inference, &asking, &mut conversation, said, ways));
            assert_eq!(answered.is_ok(), fine, "{said}");
        }
        assert_eq!(String::from_utf8(out).unwrap(), "hello\nhabye\n");
        let turns: Vec<_> = conversation.turns.iter().map(|turn| turn.content.clone()).collect();
        let expected = ["one", "hello", "four", "bye"].map(|text| Some(Content::Text(text.to_owned())));
        assert_eq!(turns, expected);
    }

    #[test]
    fn conversation_keeps_turns_and_system() {
        let roles =
            |chat: &Chat| chat.messages.iter().map(|message| message.role.clone()).collect::<Vec<_>>();
        let mut conversation = Conversation::default();
        assert_eq!(roles(&conversation.with("hi")), ["user"]);
        conversation.keep("hi", "hello".to_owned());
        conversation.system = Some("be brief".to_owned());
        let chat = conversation.with("and now?");
        assert_eq!(roles(&chat), ["system", "user", "assistant", "user"]);
        assert_eq!(chat.messages[2], Message::text("assistant", "hello"));
    }
}
