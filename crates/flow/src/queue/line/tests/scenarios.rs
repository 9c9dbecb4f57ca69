//! Scenario files: what arrives, and in which order it leaves.
//!
//! `test_data/queue/*.txt` hold commands, each followed by the lines that it answers with (they begin with `>`).
//! `UPDATE_EXPECT=1` writes the answers anew. An item is its own name.

use std::collections::BTreeMap;
use std::path::Path;

use super::*;

struct Play {
    queue: Line<String>,
    ids: BTreeMap<String, TicketId>,
    outside: BTreeMap<String, Taken<String>>,
    now: Duration,
}

fn seconds(word: &str) -> Duration {
    Duration::from_secs_f64(word.parse().unwrap_or_else(|_| panic!("'{word}' is no number of seconds")))
}

/// The value of `name=value` among the words.
fn value<'a>(words: &[&'a str], name: &str) -> Option<&'a str> {
    words.iter().find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
}

fn number(words: &[&str], name: &str, or: u64) -> u64 {
    value(words, name).map_or(or, |number| number.parse().unwrap())
}

fn capacity(words: &[&str]) -> Capacity {
    let capacity = Capacity::items(number(words, "items", 0) as usize);
    capacity.cost(number(words, "cost", 0)).bytes(number(words, "bytes", u64::MAX))
}

fn settings(words: &[&str]) -> PolicySettings {
    let mut settings = PolicySettings::from(words[0].parse::<Discipline>().unwrap());
    if let Some(step) = value(words, "age_step") {
        settings = settings.age_step(seconds(step));
    }
    if let Some((owner, weight)) = value(words, "weight").and_then(|pair| pair.split_once(':')) {
        settings = settings.weight(owner, weight.parse().unwrap());
    }
    settings
}

fn joined<T>(taken: impl IntoIterator<Item = T>, name: impl Fn(T) -> String) -> String {
    let names: Vec<String> = taken.into_iter().map(name).collect();
    if names.is_empty() { "nothing".to_owned() } else { names.join(" ") }
}

impl Play {
    fn new(words: &[&str]) -> Self {
        let (ids, outside) = (BTreeMap::new(), BTreeMap::new());
        Self { queue: Line::new(capacity(words), settings(words)), ids, outside, now: Duration::ZERO }
    }

    fn run(&mut self, words: &[&str]) -> Option<String> {
        match words {
            ["wait", time] => {
                self.now += seconds(time);
                None
            }
            ["put", name, rest @ ..] => self.put(name, rest),
            ["take"] => Some(self.take()),
            ["put_back", name] => {
                self.queue.put_back(self.outside.remove(*name).unwrap());
                None
            }
            ["remove", name] => Some(joined(self.queue.remove(self.ids[*name]), |item| item)),
            ["expire"] => Some(joined(self.queue.expire(self.now), |taken| taken.item)),
            ["drain"] => Some(joined(self.queue.drain(), |taken| taken.item)),
            ["charge", name, actual] => {
                let taken = self.outside.remove(*name).unwrap();
                self.queue.charge(&taken.ticket(), actual.parse().unwrap());
                None
            }
            ["use", rest @ ..] => {
                self.queue.set_policy(settings(rest));
                None
            }
            ["capacity", rest @ ..] => {
                self.queue.set_capacity(capacity(rest));
                None
            }
            ["close"] => {
                self.queue.close();
                None
            }
            ["show"] => Some(self.show()),
            ["ahead_of", name] => {
                let ahead = self.queue.ahead_of(self.ids[*name], self.now);
                Some(ahead.map_or("not in line".to_owned(), |ahead| ahead.to_string()))
            }
            _ => panic!("unknown command {words:?}"),
        }
    }

    fn put(&mut self, name: &str, words: &[&str]) -> Option<String> {
        let ticket = Ticket::of(value(words, "owner").unwrap_or("someone"));
        let ticket = ticket.level(number(words, "level", 0) as u8).cost(number(words, "cost", 1));
        let ticket = ticket.bytes(number(words, "bytes", 0));
        let ticket = Ticket { deadline: value(words, "deadline").map(seconds), ..ticket };
        match self.queue.try_put(name.to_owned(), ticket, self.now) {
            Ok(id) => {
                self.ids.insert(name.to_owned(), id);
                None
            }
            Err(refused) => Some(format!("{} refused: {refused}", refused.item)),
        }
    }

    fn take(&mut self) -> String {
        let Some(taken) = self.queue.take(self.now) else { return "nothing".to_owned() };
        let name = taken.item.clone();
        self.outside.insert(name.clone(), taken);
        name
    }

    fn show(&mut self) -> String {
        let order = self.queue.order(self.now);
        let line = joined(order, |id| self.queue.item(id).cloned().unwrap());
        let oldest = self.queue.oldest_age(self.now).unwrap_or_default();
        format!("{line} | items {}, cost {}, oldest {oldest:?}", self.queue.len(), self.queue.cost())
    }
}

/// Plays a file and returns it with the answers that were given.
fn played(text: &str) -> String {
    let mut play = None;
    let mut found = String::new();
    for line in text.lines().filter(|line| !line.starts_with('>')) {
        found.push_str(line);
        found.push('\n');
        let words: Vec<&str> = line.split('#').next().unwrap_or_default().split_whitespace().collect();
        let answer = match words.as_slice() {
            [] => None,
            ["policy", rest @ ..] => {
                play = Some(Play::new(rest));
                None
            }
            command => play.as_mut().expect("a scenario begins with its policy").run(command),
        };
        if let Some(answer) = answer {
            found.push_str(&format!("> {answer}\n"));
        }
    }
    found
}

#[expect(clippy::disallowed_methods, reason = "UPDATE_EXPECT is the switch of the tests, not a setting")]
fn check(file: &Path) {
    let expected = std::fs::read_to_string(file).unwrap();
    let found = played(&expected);
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(file, found).unwrap();
    } else {
        assert_eq!(found, expected, "{} (UPDATE_EXPECT=1 writes it anew)", file.display());
    }
}

#[test]
fn scenarios() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("test_data/queue");
    let files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(files.len() >= 5);
    files.iter().for_each(|file| check(file));
}
