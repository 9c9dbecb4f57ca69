//! The controller on machines of different speed, and on what it must not learn from.

use super::*;
use crate::sampler::uniform;

const TARGET: Duration = Duration::from_millis(50);

/// A machine: what a step costs before its first prompt token, and what each of them costs, in milliseconds.
#[derive(Clone, Copy)]
struct Machine {
    base: f64,
    token: f64,
    /// How much steps differ for no reason: 0.1 is up to a tenth.
    noise: f64,
}

impl Machine {
    fn step(self, tokens: usize, number: u64) -> Duration {
        let noise = 1.0 + self.noise * (2.0 * uniform(9, 0, number) - 1.0);
        Duration::from_secs_f64((self.base + self.token * tokens as f64) * noise / 1e3)
    }
}

fn pid(most: usize) -> Pid {
    Pid::new(TARGET, Gains::default(), most)
}

/// Steps that are filled to the limit; returns how long each took, in milliseconds.
fn run(pid: &mut Pid, machine: Machine, steps: u64) -> Vec<f64> {
    (0..steps)
        .map(|number| {
            let tokens = pid.tokens();
            let took = machine.step(tokens, number);
            pid.observe(tokens, took);
            took.as_secs_f64() * 1e3
        })
        .collect()
}

#[test]
fn steps_come_to_the_target_whatever_the_machine_and_stay_there() {
    for token in [0.02, 0.1, 0.5, 2.0] {
        for base in [0.0, 10.0, 30.0] {
            let took = run(&mut pid(100_000), Machine { base, token, noise: 0.0 }, 60);
            assert!(took[40..].iter().all(|ms| (ms - 50.0).abs() < 2.5), "{base} + {token}: {took:?}");
            // The first guess may be far too many; six steps later that is over.
            let most = took[6..].iter().copied().fold(0.0, f64::max);
            assert!(most < 60.0, "{base} + {token} overshoots: {took:?}");
        }
    }
}

#[test]
fn noise_is_not_amplified() {
    let took = run(&mut pid(4096), Machine { base: 10.0, token: 0.2, noise: 0.1 }, 400);
    let settled = &took[40..];
    let mean = settled.iter().sum::<f64>() / settled.len() as f64;
    assert!((mean - 50.0).abs() < 1.5, "{mean}");
    assert!(settled.iter().all(|ms| (40.0..60.0).contains(ms)), "{settled:?}");
}

#[test]
fn the_output_is_bounded_and_a_bound_leaves_no_memory() {
    // Even the most tokens are done sooner than the target: the output stays at its bound.
    let mut pid = pid(512);
    run(&mut pid, Machine { base: 1.0, token: 0.01, noise: 0.0 }, 1000);
    assert_eq!(pid.tokens(), 512);
    // A machine that becomes slow is answered at once, however long the bound had been reached.
    let took = run(&mut pid, Machine { base: 1.0, token: 0.5, noise: 0.0 }, 12);
    assert!(took[8..].iter().all(|ms| *ms < 60.0), "{took:?}");
    // Even the fewest are too many: prompts go on all the same.
    run(&mut pid, Machine { base: 80.0, token: 0.5, noise: 0.0 }, 1000);
    assert_eq!(pid.tokens(), 8);
    assert_eq!(Pid::new(TARGET, Gains::default(), 4).tokens(), 4);
}

#[test]
fn short_prompts_teach_nothing_but_that_they_were_too_long() {
    let mut pid = pid(4096);
    run(&mut pid, Machine { base: 10.0, token: 0.2, noise: 0.0 }, 60);
    let learned = pid.tokens();
    for _ in 0..1000 {
        pid.observe(3, Duration::from_millis(11));
        pid.observe(0, Duration::from_millis(10));
    }
    assert_eq!(pid.tokens(), learned, "steps that were not filled do not wind it up");
    pid.observe(learned / 2, Duration::from_millis(100));
    assert!(pid.tokens() < learned / 2, "half of it took too long already");
    assert!((pid.error() + 0.05).abs() < 1e-9);
}

#[test]
fn one_stalled_step_does_not_undo_what_was_learned() {
    let mut pid = pid(4096);
    let machine = Machine { base: 10.0, token: 0.2, noise: 0.0 };
    run(&mut pid, machine, 60);
    let learned = pid.tokens() as f64;
    pid.observe(pid.tokens(), Duration::from_secs(30));
    assert!(pid.tokens() as f64 > learned * 0.4);
    let took = run(&mut pid, machine, 10);
    assert!(took[6..].iter().all(|ms| (45.0..55.0).contains(ms)), "{took:?}");
}

#[test]
fn another_target_is_met_from_what_was_learned() {
    let mut pid = pid(4096);
    let machine = Machine { base: 0.0, token: 0.2, noise: 0.0 };
    run(&mut pid, machine, 60);
    pid.retarget(Duration::from_millis(100));
    let took = run(&mut pid, machine, 5);
    assert!(took.iter().all(|ms| (95.0..105.0).contains(ms)), "{took:?}");
    assert_eq!(pid.target(), Duration::from_millis(100));
}
