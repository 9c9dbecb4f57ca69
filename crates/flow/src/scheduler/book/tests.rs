//! The book alone, told the time.

mod random_jobs;

use std::sync::Arc;
use std::time::Duration;

use super::{Book, JobId, Placement};
use crate::scheduler::{Balance, Device, Inventory, Needs, NeedsError, Rules};

const MS: Duration = Duration::from_millis(1);

fn rules() -> Rules {
    Rules { age_step: 100 * MS, patience: 50 * MS, ..Rules::default() }
}

fn book(inventory: &Inventory, rules: Rules) -> Book {
    Book::new(inventory, rules).unwrap()
}

fn ask(book: &mut Book, memory: u64, owner: &str, level: u8, now: Duration) -> JobId {
    book.ask(&Needs::new().memory(memory), &Arc::from(owner), level, now).unwrap()
}

fn start(book: &mut Book, now: Duration) -> Vec<Placement> {
    book.start(now, usize::MAX)
}

fn jobs(started: &[Placement]) -> Vec<JobId> {
    started.iter().map(|placement| placement.job).collect()
}

#[test]
fn the_urgent_go_first_and_waiting_makes_urgent() {
    let mut book = book(&Inventory::new().memory(1), rules());
    let running = ask(&mut book, 1, "a", 0, Duration::ZERO);
    let first = start(&mut book, Duration::ZERO);
    assert_eq!(jobs(&first), [running]);
    let lazy = ask(&mut book, 1, "a", 2, Duration::ZERO);
    let urgent = ask(&mut book, 1, "a", 0, 10 * MS);
    book.give_back(&first[0]);
    let second = start(&mut book, 10 * MS);
    assert_eq!(jobs(&second), [urgent]);
    let late = ask(&mut book, 1, "a", 0, 299 * MS);
    book.give_back(&second[0]);
    // After three steps the lazy one counts as urgent, and came first.
    let third = start(&mut book, 300 * MS);
    assert_eq!(jobs(&third), [lazy]);
    book.give_back(&third[0]);
    assert_eq!(jobs(&start(&mut book, 301 * MS)), [late]);
}

#[test]
fn the_owner_who_has_least_goes_first() {
    let inventory = Inventory::new().memory(18).cpu(9000);
    let mut book = book(&inventory, rules());
    let mut ask = |owner: &str, needs: Needs| book.ask(&needs, &Arc::from(owner), 0, Duration::ZERO).unwrap();
    // The example of the paper: "a" wants mainly memory, "b" mainly processors.
    for _ in 0..20 {
        ask("a", Needs::new().memory(4).cpu(1000));
        ask("b", Needs::new().memory(1).cpu(3000));
    }
    let started = start(&mut book, Duration::ZERO);
    assert_eq!(started.len(), 5);
    let shares = book.shares();
    assert_eq!(shares, [(Arc::from("a"), 2.0 / 3.0), (Arc::from("b"), 2.0 / 3.0)]);
}

#[test]
fn a_weight_gives_more() {
    let mut book = book(&Inventory::new().memory(40), rules());
    book.set_weight("a", 3.0);
    for _ in 0..40 {
        ask(&mut book, 1, "a", 0, Duration::ZERO);
        ask(&mut book, 1, "b", 0, Duration::ZERO);
    }
    start(&mut book, Duration::ZERO);
    assert_eq!(book.shares(), [(Arc::from("a"), 0.75), (Arc::from("b"), 0.25)]);
}

#[test]
fn small_work_overtakes_until_patience_ends() {
    let mut book = book(&Inventory::new().memory(10).cpu(1000), rules());
    let filler = ask(&mut book, 6, "a", 0, Duration::ZERO);
    let running = start(&mut book, Duration::ZERO);
    assert_eq!(jobs(&running), [filler]);
    let big = ask(&mut book, 8, "a", 0, Duration::ZERO);
    let small = ask(&mut book, 4, "a", 0, MS);
    let overtaking = start(&mut book, MS);
    assert_eq!(jobs(&overtaking), [small]);
    book.give_back(&overtaking[0]);
    // The big one has been patient for 50 ms: from now on 8 of 10 are kept for it.
    let too_much = ask(&mut book, 4, "a", 0, 51 * MS);
    let beside = ask(&mut book, 2, "a", 0, 51 * MS);
    let other = book.ask(&Needs::new().cpu(1000), &Arc::from("a"), 0, 51 * MS).unwrap();
    let started = start(&mut book, 51 * MS);
    assert_eq!(jobs(&started), [beside, other]);
    // What overtook since then counts: two and two more would leave the big one six.
    let again = ask(&mut book, 2, "a", 0, 52 * MS);
    assert_eq!(jobs(&start(&mut book, 52 * MS)), []);
    book.give_back(&started[0]);
    assert_eq!(jobs(&start(&mut book, 53 * MS)), [again]);
    book.give_back(&running[0]);
    let started = start(&mut book, 60 * MS);
    assert_eq!(jobs(&started), [big]);
    book.give_back(&started[0]);
    assert_eq!(jobs(&start(&mut book, 61 * MS)), [too_much]);
}

#[test]
fn who_leaves_takes_its_claim_with_it() {
    let mut book = book(&Inventory::new().memory(10), rules());
    ask(&mut book, 6, "a", 0, Duration::ZERO);
    start(&mut book, Duration::ZERO);
    let big = ask(&mut book, 8, "a", 0, Duration::ZERO);
    let small = ask(&mut book, 4, "a", 0, 60 * MS);
    assert_eq!(jobs(&start(&mut book, 60 * MS)), []);
    assert!(book.leave(big) && !book.leave(big));
    assert_eq!(jobs(&start(&mut book, 60 * MS)), [small]);
}

/// A stream of small work that never lets the machine be empty, and one large piece.
fn wait_of_a_big_one(rules: Rules) -> Option<Duration> {
    let mut book = book(&Inventory::new().memory(4), rules);
    let mut running: Vec<(Duration, Placement)> = Vec::new();
    let mut big = None;
    for tick in 0..2000_u32 {
        let now = tick * MS;
        for (_, placement) in running.extract_if(.., |(end, _)| *end <= now) {
            book.give_back(&placement);
        }
        ask(&mut book, 1, "small", 0, now);
        if tick == 10 {
            big = Some(ask(&mut book, 4, "big", 0, now));
        }
        for placement in start(&mut book, now) {
            if Some(placement.job) == big {
                return Some(now - 10 * MS);
            }
            running.push((now + 4 * MS, placement));
        }
    }
    None
}

#[test]
fn a_stream_of_small_work_cannot_starve_a_big_one() {
    let waited = wait_of_a_big_one(rules()).unwrap();
    assert!(waited >= rules().patience && waited <= rules().patience + 2 * 4 * MS, "{waited:?}");
    let impatient = Rules { patience: Duration::ZERO, ..rules() };
    assert!(wait_of_a_big_one(impatient).unwrap() <= 4 * MS);
    // Without the claim it would starve, which is what the claim is for.
    assert_eq!(wait_of_a_big_one(Rules { patience: Duration::MAX, ..rules() }), None);
}

#[test]
fn what_can_never_fit_is_refused_with_the_reason() {
    let gpu = |name: &str, memory: u64| Device::new("gpu", name).memory(memory);
    let inventory =
        Inventory::new().memory(2_000_000_000).device(gpu("gpu0", 80 << 30)).device(gpu("gpu1", 40 << 30));
    let mut book = book(&inventory, rules());
    let mut check = |needs: Needs, expected: &str| {
        let refused: NeedsError = book.ask(&needs, &Arc::from("a"), 0, Duration::ZERO).unwrap_err();
        assert_eq!(refused.to_string(), expected);
    };
    check(
        Needs::new().memory(3_000_000_000),
        "memory: 3GB is needed and 2GB is the most that there is; it can never run",
    );
    check(
        Needs::new().devices("gpu", 3),
        "gpu: 3 is needed and 2 is the most that there is; it can never run",
    );
    check(
        Needs::new().with("gpu_memory", 90 << 30),
        "gpu_memory: 90GiB is needed and 80GiB is the most that there is; it can never run",
    );
    check(
        Needs::new().devices("gpu", 2).with("gpu_memory", 50 << 30),
        "2 gpu devices that have all of what is needed do not exist, only 1; it can never run",
    );
    check(
        Needs::new().with("gpu", 1500),
        "gpu: 1.5 devices cannot be had; ask for a share of one, or for whole ones",
    );
    check(
        Needs::new().with("gpus", 1),
        "there is no resource 'gpus'; did you mean 'gpu'? the inventory has gpu, memory, gpu_memory",
    );
}

#[test]
fn work_is_spread_over_devices() {
    let check = |balance: Balance, share: u64, expected: &[&str]| {
        let device = |name: &str| Device::new("gpu", name).memory(100);
        let inventory = Inventory::new().device(device("gpu0")).device(device("gpu1"));
        let mut book = book(&inventory, Rules { balance, ..rules() });
        let needs = Needs::new().with("gpu", share).with("gpu_memory", 10);
        let mut got = Vec::new();
        for _ in 0..expected.len() {
            book.ask(&needs, &Arc::from("a"), 0, Duration::ZERO).unwrap();
            got.extend(start(&mut book, Duration::ZERO).into_iter().flat_map(|started| started.devices));
        }
        assert_eq!(got.iter().map(|name| &**name).collect::<Vec<_>>(), expected, "{balance:?}");
    };
    check(Balance::LeastReserved, 250, &["gpu0", "gpu1", "gpu0", "gpu1"]);
    check(Balance::Packed, 250, &["gpu0", "gpu0", "gpu0", "gpu0"]);
    check(Balance::Packed, 500, &["gpu0", "gpu0", "gpu1", "gpu1"]);
}

#[test]
fn short_work_takes_turns_on_idle_devices() {
    let inventory = Inventory::new().device(Device::new("gpu", "gpu0")).device(Device::new("gpu", "gpu1"));
    let mut book = book(&inventory, rules());
    let mut got = Vec::new();
    for _ in 0..4 {
        book.ask(&Needs::new().devices("gpu", 1), &Arc::from("a"), 0, Duration::ZERO).unwrap();
        let started = start(&mut book, Duration::ZERO);
        book.give_back(&started[0]);
        got.push(started[0].devices[0].to_string());
    }
    assert_eq!(got, ["gpu0", "gpu1", "gpu0", "gpu1"]);
}

#[test]
fn an_inventory_that_changes() {
    let mut book = book(&Inventory::new().memory(10).device(Device::new("gpu", "gpu0")), rules());
    let gpu = Needs::new().devices("gpu", 1);
    let owner = Arc::from("a");
    book.ask(&gpu, &owner, 0, Duration::ZERO).unwrap();
    let on_first = start(&mut book, Duration::ZERO);
    let waits = book.ask(&gpu, &owner, 0, Duration::ZERO).unwrap();
    assert_eq!(jobs(&start(&mut book, MS)), []);
    assert_eq!(book.add_device(&Device::new("gpu", "gpu1")), Ok(vec![]));
    let on_second = start(&mut book, MS);
    assert_eq!((jobs(&on_second), &*on_second[0].devices[0]), (vec![waits], "gpu1"));
    assert_eq!(book.retire_device("gpu0"), Ok(vec![]));
    assert!(book.retire_device("gpu0").is_err() && book.add_device(&Device::new("gpu", "gpu1")).is_err());
    let both = book.ask(&Needs::new().devices("gpu", 2), &owner, 0, MS);
    assert!(matches!(both, Err(NeedsError::TooMuch { asked: 2000, largest: 1000, .. })), "{both:?}");
    let waits = book.ask(&gpu, &owner, 0, MS).unwrap();
    book.give_back(&on_first[0]);
    assert_eq!(jobs(&start(&mut book, MS)), []);
    let lost = book.retire_device("gpu1").unwrap();
    assert_eq!(lost.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [waits]);
    assert_eq!(book.add_device(&Device::new("gpu", "gpu0")), Ok(vec![]));
    let big = ask(&mut book, 8, "a", 0, MS);
    let small = ask(&mut book, 2, "a", 0, MS);
    let lost = book.set_capacity("memory", 4).unwrap();
    assert_eq!(lost.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [big]);
    assert!(book.set_capacity("memroy", 4).is_err());
    assert_eq!(jobs(&start(&mut book, MS)), [small]);
}

#[test]
fn an_allowance_bounds_what_starts() {
    let mut book = book(&Inventory::new().memory(10), rules());
    for _ in 0..5 {
        ask(&mut book, 1, "a", 0, Duration::ZERO);
    }
    assert_eq!(book.start(Duration::ZERO, 0).len(), 0);
    assert_eq!(book.start(Duration::ZERO, 2).len(), 2);
    assert_eq!(book.start(Duration::ZERO, usize::MAX).len(), 3);
}
