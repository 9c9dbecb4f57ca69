//! How the benches of this crate measure: contenders take turns, round by round, so that a noisy minute hurts all
//! alike; what is printed is the median with the least and the most, and each bar as a ratio within one run.

#![allow(dead_code, unreachable_pub)]

use std::time::{Duration, Instant};

/// Rounds that count. One more runs before them and warms up what there is to warm up.
const ROUNDS: usize = 7;

/// Whether more is better (items per second) or less (nanoseconds).
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Better {
    /// More is better.
    Higher,
    /// Less is better.
    Lower,
}

/// Something to measure: a name and one round of it, which answers with its figure.
pub struct Contender<'a> {
    name: String,
    round: Box<dyn FnMut() -> f64 + 'a>,
}

impl<'a> Contender<'a> {
    /// A contender.
    pub fn new(name: impl Into<String>, round: impl FnMut() -> f64 + 'a) -> Self {
        Self { name: name.into(), round: Box::new(round) }
    }
}

/// What the rounds of one contender came to.
pub struct Outcome {
    /// The contender.
    pub name: String,
    figures: Vec<f64>,
}

impl Outcome {
    /// The figure of the round in the middle.
    pub fn median(&self) -> f64 {
        self.figures[self.figures.len() / 2]
    }
}

/// What has to occur in the table or the name of a contender that is measured, each with alternatives between bars: what
/// the bench was told.
fn patterns() -> impl Iterator<Item = String> {
    std::env::args().skip(1).filter(|argument| !argument.starts_with("--"))
}

/// Whether the bench was told nothing, so that everything is measured.
pub fn is_whole() -> bool {
    patterns().next().is_none()
}

/// As [`compare`], but with those contenders alone that were asked for, so that a ratio is found in seconds.
pub fn compare_chosen(title: &str, unit: &str, mut contenders: Vec<Contender<'_>>) -> Vec<Outcome> {
    contenders.retain(|contender| {
        let occurs = |part: &str| title.contains(part) || contender.name.contains(part);
        patterns().all(|pattern| pattern.split('|').any(occurs))
    });
    if contenders.is_empty() { Vec::new() } else { compare(title, unit, contenders) }
}

/// Lets the contenders take turns and prints a table in `unit`.
pub fn compare(title: &str, unit: &str, mut contenders: Vec<Contender<'_>>) -> Vec<Outcome> {
    let mut outcomes: Vec<Outcome> = contenders
        .iter()
        .map(|contender| Outcome { name: contender.name.clone(), figures: Vec::new() })
        .collect();
    for round in 0..=ROUNDS {
        for (contender, outcome) in contenders.iter_mut().zip(&mut outcomes) {
            let figure = (contender.round)();
            if round > 0 {
                outcome.figures.push(figure);
            }
        }
    }
    println!("\n{title} [{unit}]: median (least to most) of {ROUNDS} interleaved rounds");
    for outcome in &mut outcomes {
        outcome.figures.sort_by(f64::total_cmp);
        let (least, most) = (outcome.figures[0], outcome.figures[ROUNDS - 1]);
        println!("  {:<44} {:>12} ({} to {})", outcome.name, show(outcome.median()), show(least), show(most));
    }
    outcomes
}

/// Prints the ratio of two contenders, as "so many times better", and whether it reaches the bar.
pub fn bar(outcomes: &[Outcome], ours: &str, peer: &str, least: f64, better: Better) {
    let find = |name: &str| outcomes.iter().find(|outcome| outcome.name == name).map(Outcome::median);
    let (Some(our), Some(other)) = (find(ours), find(peer)) else {
        println!("  {ours} against {peer}: not measured here");
        return;
    };
    let ratio = if better == Better::Higher { our / other } else { other / our };
    let verdict = if ratio >= least { "met" } else { "MISSED" };
    println!("  {ours} = {ratio:.2}x {peer}; the bar is {least}x: {verdict}");
}

/// How long `work` takes.
pub fn time(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

fn show(figure: f64) -> String {
    match figure.abs() {
        size if size >= 10_000.0 => format!("{:.0} k", figure / 1000.0),
        size if size >= 100.0 => format!("{figure:.0}"),
        size if size >= 1.0 => format!("{figure:.2}"),
        _ => format!("{figure:.4}"),
    }
}
