//! Scenario files: what is submitted, and what every step then does.
//!
//! `test_data/*.txt` hold commands, and after each `step` the trace that it leaves (lines that begin with `>`).
//! `UPDATE_EXPECT=1` writes the traces anew. A request is named by a letter; its prompt repeats one token.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use flow::queue::policy::Discipline;
use protocol::{Event, GenerateRequest, Inference, Priority, TenantId};

use super::bench::{Bench, Client, settings, tokens};
use super::model::HashModel;
use crate::sequence::Sequence;

struct Play {
    bench: Bench,
    clients: BTreeMap<char, Client>,
    letters: Vec<char>,
    seen: Arc<Mutex<Vec<(u32, usize, usize)>>>,
    steps: u32,
}

fn text<'a>(words: &[&'a str], name: &str) -> Option<&'a str> {
    words.iter().find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
}

fn number(words: &[&str], name: &str) -> Option<usize> {
    text(words, name).map(|value| value.parse().unwrap())
}

impl Play {
    fn new(words: &[&str]) -> Self {
        let get = |name| number(words, name).unwrap_or_else(|| panic!("engine needs {name}="));
        let model = HashModel::new();
        let seen = model.seen.clone();
        let mut settings = settings(get("pages"), get("tokens"), get("sequences"));
        settings.queue_requests = number(words, "queue").unwrap_or(100);
        if let Some(policy) = text(words, "policy") {
            settings.policy = policy.parse::<Discipline>().unwrap().into();
        }
        if let Some((tenant, weight)) = text(words, "weight").and_then(|pair| pair.split_once(':')) {
            settings.policy = settings.policy.weight(tenant, weight.parse().unwrap());
        }
        let bench = Bench::new(model, settings);
        seen.lock().unwrap().clear();
        Self { bench, clients: BTreeMap::new(), letters: Vec::new(), seen, steps: 0 }
    }

    fn submit(&mut self, name: char, words: &[&str], trace: &mut String) {
        let prompt = vec![name as u32; number(words, "prompt").unwrap()];
        let mut request = tokens(prompt, number(words, "max").unwrap() as u32);
        request.limits.ignore_eos = true;
        request.choices = number(words, "n").unwrap_or(1) as u32;
        request.deadline = number(words, "deadline").map(|millis| Duration::from_millis(millis as u64));
        if let Some(tenant) = text(words, "tenant") {
            request.tenant = TenantId(tenant.to_owned());
        }
        request.priority = match text(words, "priority") {
            Some("high") => Priority::High,
            Some("low") => Priority::Low,
            _ => Priority::Normal,
        };
        self.accept(name, request, trace);
    }

    fn accept(&mut self, name: char, request: GenerateRequest, trace: &mut String) {
        match self.bench.ask(request) {
            Ok(client) => {
                self.clients.insert(name, client);
                self.letters.push(name);
            }
            Err(refusal) => writeln!(trace, "> {name} refused: {refusal}").unwrap(),
        }
    }

    fn step(&mut self, trace: &mut String) {
        self.bench.step();
        self.steps += 1;
        let load = self.bench.engine.status().load;
        let computed = self.seen.lock().unwrap().drain(..).map(describe).collect::<Vec<_>>().join(", ");
        let names = |sequences: &[Sequence]| -> String {
            sequences.iter().map(|s| self.letters[s.rank.order as usize]).collect()
        };
        let line: String =
            self.bench.run_loop.line.orders().into_iter().map(|order| self.letters[order as usize]).collect();
        write!(trace, "> {}: {computed} | {}", self.steps, names(&self.bench.run_loop.running)).unwrap();
        for (what, who) in [("lobby", names(&self.bench.run_loop.lobby)), ("line", line)] {
            if !who.is_empty() {
                write!(trace, " | {what} {who}").unwrap();
            }
        }
        writeln!(trace, " | pages {}/{}", load.kv_pages_used, load.kv_pages_total).unwrap();
        for (name, client) in &mut self.clients {
            client.events.clear();
            let events: Vec<String> = client.read().iter().map(short).collect();
            if !events.is_empty() {
                writeln!(trace, ">    {name}: {}", events.join(", ")).unwrap();
            }
        }
    }

    fn obey(&mut self, words: &[&str], trace: &mut String) {
        let name = || words[1].chars().next().unwrap();
        match words[0] {
            "submit" => self.submit(name(), words, trace),
            "cancel" => drop(self.clients.remove(&name())),
            "clock" => self.bench.clock.advance(Duration::from_millis(words[1].parse().unwrap())),
            "skip" => {
                (0..words[1].parse().unwrap()).for_each(|_| self.step(&mut String::new()));
            }
            "step" => {
                (0..words.get(1).map_or(1, |times| times.parse().unwrap())).for_each(|_| self.step(trace));
            }
            other => panic!("unknown command {other}"),
        }
    }
}

fn describe((first, context, rows): (u32, usize, usize)) -> String {
    format!("{} {context}+{rows}", char::from_u32(first).unwrap())
}

fn short(event: &Event) -> String {
    match event {
        Event::Queued { ahead } => format!("queued behind {ahead}"),
        Event::Started => "started".to_owned(),
        Event::Delta(delta) => format!("{} token(s) of {}", delta.tokens.len(), delta.choice),
        Event::Finished { choice, reason } => format!("{choice} ended by {reason:?}"),
        Event::Done { usage, .. } => format!("done {}+{}", usage.prompt_tokens, usage.completion_tokens),
        Event::Failed(failure) => format!("failed: {failure}"),
    }
}

fn check(file: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("test_data").join(file);
    let expected = std::fs::read_to_string(&path).unwrap();
    let mut play = None;
    let mut found = String::new();
    for line in expected.lines().filter(|line| !line.starts_with('>')) {
        writeln!(found, "{line}").unwrap();
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.first() {
            None => {}
            Some(word) if word.starts_with('#') => {}
            Some(&"engine") => play = Some(Play::new(&words)),
            Some(_) => play.as_mut().expect("engine comes first").obey(&words, &mut found),
        }
    }
    if option_env!("UPDATE_EXPECT").is_some() {
        std::fs::write(&path, &found).unwrap();
    } else {
        assert_eq!(found, expected, "{file} (UPDATE_EXPECT=1 writes it anew)");
    }
}

#[test]
fn mixed_steps() {
    check("mixed_steps.txt");
}

#[test]
fn fair_reading() {
    check("fair_reading.txt");
}

#[test]
fn preemption() {
    check("preemption.txt");
}

#[test]
fn priorities() {
    check("priorities.txt");
}

#[test]
fn fair_share() {
    check("fair_share.txt");
}

#[test]
fn turns() {
    check("turns.txt");
}

#[test]
fn due() {
    check("due.txt");
}

#[test]
fn choices() {
    check("choices.txt");
}

#[test]
fn leaving() {
    check("leaving.txt");
}
