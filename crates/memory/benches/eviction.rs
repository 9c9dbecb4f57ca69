//! What eviction policies find, beside who knows the future and beside the caches that people use: on three made-up traces,
//! the same ones every time, and on a recorded one.
//!
//! `cargo xtask bench memory eviction` runs the first three; with `-- FILE` also a file that `tidegate serve --trace` has
//! written beside `--kv-dir`.

#[path = "eviction/peers.rs"]
mod peers;
#[path = "eviction/traces.rs"]
mod traces;

use std::path::Path;

use memory::PolicyChoice;
use memory::eviction::POLICIES;
use memory::replay::{Found, Use, distinct_bytes, optimum, replay};

/// What finds something in a trace, within a number of bytes.
type Contender = (String, Box<dyn Fn(&[Use], usize) -> Found>);

fn contenders() -> Vec<Contender> {
    let ours = POLICIES.iter().map(|policy| {
        let choice = PolicyChoice::Known(*policy);
        let run = move |uses: &[Use], budget| replay(&choice, uses, budget);
        (policy.name.to_owned(), Box::new(run) as Box<dyn Fn(&[Use], usize) -> Found>)
    });
    let mut all: Vec<Contender> = ours.collect();
    all.push(("moka (TinyLFU)".to_owned(), Box::new(peers::moka_tiny_lfu)));
    all.push(("moka (LRU)".to_owned(), Box::new(peers::moka_lru)));
    all.push(("quick_cache".to_owned(), Box::new(peers::quick_cache)));
    all.push(("optimum (Belady)".to_owned(), Box::new(optimum)));
    all
}

fn table(title: &str, uses: &[Use], budgets: &[usize]) {
    let all = distinct_bytes(uses);
    println!("\n{title}: {} uses, {:.0} MiB in all; found of the uses, of their bytes", uses.len(), mib(all));
    print!("{:<18}", "with MiB");
    budgets.iter().for_each(|budget| print!("{:>18.0}", mib(*budget)));
    for (name, run) in contenders() {
        print!("\n  {name:<16}");
        for budget in budgets {
            let found = run(uses, *budget);
            let figures = format!("{:.1}, {:.1} %", found.hit_rate() * 100.0, found.byte_hit_rate() * 100.0);
            print!("{figures:>18}");
        }
    }
    println!();
}

fn mib(bytes: usize) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

fn main() {
    for (title, uses, sizes) in [
        ("scans between uses of a hot set of 26 MiB", traces::scans(), [8, 16, 24, 32]),
        ("rounds through 5,000 objects", traces::rounds(), [31, 94, 250, 300]),
        ("Zipf, exponent 0.9", traces::zipf(), [6, 28, 84, 168]),
    ] {
        table(title, &uses, &sizes.map(|size: usize| size << 20));
    }
    // Cargo passes options of its own beside what it was given.
    for file in std::env::args().skip(1).filter(|argument| !argument.starts_with('-')) {
        match traces::recorded(Path::new(&file)) {
            Ok(uses) => {
                let all = distinct_bytes(&uses);
                table(&file, &uses, &[all / 16, all / 8, all / 4, all / 2]);
            }
            Err(error) => {
                eprintln!("error: {file}: {error}");
                std::process::exit(1);
            }
        }
    }
}
