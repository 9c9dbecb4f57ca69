//! What one item costs a line: nanoseconds of a put and its take, and bytes on top of the item while it waits.

mod measure;

use std::collections::VecDeque;
use std::hint::black_box;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use flow::metrics::System;
use flow::queue::policy::{Discipline, POLICIES};
use flow::{Capacity, Line, Ticket};

use measure::{Better, Contender, bar, compare, time};

const OWNERS: usize = 64;
const ROUND_TRIPS: u32 = 300_000;
/// So many items wait while others pass in the second table.
const BACKLOG: usize = 100_000;

/// Asks this program for the overhead of one policy.
const OVERHEAD: &str = "--overhead";
const ITEMS: usize = 1_000_000;
const ITEM_BYTES: usize = 1024;

fn owners() -> Vec<Arc<str>> {
    (0..OWNERS).map(|number| format!("tenant {number}").into()).collect()
}

/// A ticket of another owner and level each time, as a server sees them.
fn ticket(owners: &[Arc<str>], number: u32) -> Ticket {
    let ticket = Ticket::of(owners[number as usize * 7 % OWNERS].clone()).level((number % 3) as u8);
    ticket.cost(u64::from(number % 1000)).bytes(1024)
}

/// The same with a deadline in the order of arrival, as equal time limits give it.
fn dated(owners: &[Arc<str>], number: u32) -> Ticket {
    ticket(owners, number).deadline(Duration::from_secs(3600) + Duration::from_micros(number.into()))
}

/// Nanoseconds of a put and its take, with `backlog` items waiting all the time.
fn round_trip(discipline: Discipline, backlog: usize, ticket: fn(&[Arc<str>], u32) -> Ticket) -> f64 {
    let owners = owners();
    let mut line: Line<[u64; 8]> = Line::new(Capacity::UNBOUNDED, discipline);
    for number in 0..backlog as u32 {
        let accepted = line.try_put([number.into(); 8], ticket(&owners, number), Duration::ZERO);
        assert!(accepted.is_ok(), "an open line without bounds takes everything");
    }
    let took = time(|| {
        for number in 0..ROUND_TRIPS {
            let now = Duration::from_micros(number.into());
            black_box(line.try_put([number.into(); 8], ticket(&owners, number), now).ok());
            black_box(line.take(now));
        }
    });
    took.as_nanos() as f64 / f64::from(ROUND_TRIPS)
}

/// The same for a ring buffer, which has no policy, bounds or tickets: what cannot be beaten.
fn ring(backlog: usize) -> f64 {
    let owners = owners();
    let mut line: VecDeque<([u64; 8], Ticket)> = VecDeque::new();
    line.extend((0..backlog as u32).map(|number| ([number.into(); 8], ticket(&owners, number))));
    let took = time(|| {
        for number in 0..ROUND_TRIPS {
            line.push_back(([number.into(); 8], ticket(&owners, number)));
            black_box(line.pop_front());
        }
    });
    took.as_nanos() as f64 / f64::from(ROUND_TRIPS)
}

fn put_and_take(title: &str, backlog: usize) {
    let mut contenders = vec![Contender::new("a VecDeque", move || ring(backlog))];
    for policy in POLICIES {
        contenders.push(Contender::new(policy.name, move || round_trip(policy, backlog, ticket)));
    }
    for policy in [POLICIES[0], POLICIES[POLICIES.len() - 1]] {
        let name = format!("{policy}, with deadlines");
        contenders.push(Contender::new(name, move || round_trip(policy, backlog, dated)));
    }
    let outcomes = compare(title, "ns", contenders);
    bar(&outcomes, "fair_share", "fifo", 0.5, Better::Lower);
}

/// Bytes that a waiting item takes on top of itself, by what the process holds.
fn overhead(discipline: Discipline) -> Option<f64> {
    let owners = owners();
    let resident = || System::here().process().resident_bytes;
    let before = resident()?;
    let mut line: Line<[u8; ITEM_BYTES]> = Line::new(Capacity::items(ITEMS), discipline);
    for number in 0..ITEMS as u32 {
        let accepted = line.try_put([number as u8; ITEM_BYTES], ticket(&owners, number), Duration::ZERO);
        assert!(accepted.is_ok(), "there is room for all");
    }
    let held = resident()?.saturating_sub(before);
    black_box(&line);
    Some(held as f64 / ITEMS as f64 - ITEM_BYTES as f64)
}

/// Measures each policy in a process of its own, because one that has freed a gibibyte may keep it.
fn overheads() {
    println!("\nbytes on top of each of {ITEMS} waiting items of {ITEM_BYTES} bytes");
    for policy in POLICIES {
        let program = std::env::current_exe().expect("a running program has a file");
        let child =
            Command::new(program).args([OVERHEAD, policy.name]).output().expect("it starts once more");
        print!("{}", String::from_utf8_lossy(&child.stdout));
    }
}

fn print_overhead(discipline: Discipline) {
    let Some(bytes) = overhead(discipline) else {
        println!("  {discipline}: this system does not say what a process holds");
        return;
    };
    let percent = bytes / ITEM_BYTES as f64 * 100.0;
    let verdict = if percent < 5.0 { "met" } else { "MISSED" };
    println!("  {:<44} {bytes:>12.1} ({percent:.2} %; the bar is 5 %: {verdict})", discipline.name);
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(at) = arguments.iter().position(|argument| argument == OVERHEAD) {
        print_overhead(arguments[at + 1].parse().expect("the parent passes a policy"));
        return;
    }
    put_and_take("a put and its take, nothing else waits", 0);
    put_and_take("a put and its take while 100,000 wait", BACKLOG);
    overheads();
}
