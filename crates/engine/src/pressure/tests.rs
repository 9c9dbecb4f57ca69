//! Short memory takes in order what can be had again, and gives it back; what was accepted comes to its end all the same.

use futures::FutureExt;
use protocol::scripted::Scripted;
use protocol::{Adjustment, Inference};

use super::*;
use crate::tests::bench::{Bench, Client, settings, tokens};
use crate::tests::model::HashModel;

fn reading(used: f64) -> Reading {
    Reading { used, stalled: 0.0 }
}

/// Readings, and what is given up after each.
fn check(trace: &[(f64, Relief)]) {
    let mut judge = Judge::new(Watermarks::default());
    for (step, (used, expected)) in trace.iter().enumerate() {
        assert_eq!(judge.observe(reading(*used)), *expected, "reading {step} of {trace:?}");
    }
}

#[test]
fn one_thing_after_the_other_is_given_up_and_taken_back() {
    use Relief::{Hold, Models, None, Pictures, Prefixes, Results, Slower};
    let rising = [Results, Pictures, Prefixes, Models, Slower];
    let mut trace = vec![(0.5, None), (0.79, None)];
    trace.extend(rising.map(|relief| (0.8, relief)));
    check(&trace);
    // Nothing more than that below the second mark; and between a mark and its margin nothing is taken back.
    let mut trace: Vec<(f64, Relief)> = rising.map(|relief| (0.85, relief)).into();
    trace.extend([(0.85, Slower), (0.85, Slower), (0.77, Slower)]);
    check(&trace);
    let short = [Results, Pictures, Prefixes, Models, Slower, Hold].map(|relief| (0.95, relief));
    let calm = [Hold, Hold, Hold, Slower, Slower, Slower, Slower, Models];
    let mut trace: Vec<(f64, Relief)> = short.into();
    trace.extend(calm.map(|relief| (0.1, relief)));
    trace.push((0.95, Slower));
    check(&trace);
    // Once it is less short, requests start again one by one.
    check(&[&short[..], &[(0.82, Slower)]].concat());
}

#[test]
fn the_engine_hears_of_every_reading_while_memory_is_short_and_the_status_says_so() {
    let scripted = Arc::new(Scripted::new());
    let eased = Eased::new(scripted.clone(), Watermarks::default());
    let observe = |used| eased.observe(reading(used)).now_or_never().unwrap();
    let pressure = || eased.status().pressure;
    observe(0.3);
    assert!(scripted.ledger().adjustments.is_empty() && eased.status().health == Health::Healthy);
    assert_eq!((pressure().threshold, pressure().used), (0.8, 0.3));
    (0..7).for_each(|_| observe(0.97));
    let Health::Degraded(reasons) = eased.status().health else { panic!("it is degraded") };
    assert_eq!(
        reasons,
        [
            "memory is short (97 % used): nothing is kept that nobody uses, models among it, and no request starts while others run"
        ]
    );
    assert_eq!((pressure().relief, pressure().raised), (Relief::Hold, 6));
    (0..6 * CALM).for_each(|_| observe(0.2));
    assert_eq!((eased.status().health, pressure().relief), (Health::Healthy, Relief::None));
    let heard: Vec<Relief> = scripted
        .ledger()
        .adjustments
        .iter()
        .map(|adjustment| match adjustment {
            Adjustment::Relief(relief) => *relief,
            other => panic!("{other:?}"),
        })
        .collect();
    let steps: Vec<Relief> = heard.chunk_by(|a, b| a == b).map(|same| same[0]).collect();
    let up = Relief::ALL.into_iter().skip(1);
    assert_eq!(steps, up.chain(Relief::ALL.into_iter().rev().skip(1)).collect::<Vec<_>>());
    assert!(heard.len() > 20, "what was left behind meanwhile is given up again: {heard:?}");
}

fn ease(bench: &mut Bench, relief: Relief) {
    let adjusted = bench.engine.adjust(Adjustment::Relief(relief));
    bench.run_loop.obey_all();
    assert_eq!(adjusted.now_or_never(), Some(Ok(())));
}

#[test]
fn keys_that_nobody_uses_go_and_those_in_use_stay() {
    let mut bench = Bench::new(HashModel::new(), settings(64, 64, 4));
    let mut long = tokens(vec![5; 70], 60);
    long.limits.ignore_eos = true;
    let kept = bench.ask(tokens(vec![7; 100], 1)).unwrap();
    bench.finish();
    assert_eq!(bench.engine.status().load.kv_pages_cached, 3);
    let running = bench.ask(long.clone()).unwrap();
    (0..4).for_each(|_| bench.step());
    ease(&mut bench, Relief::Pictures);
    assert_eq!(bench.engine.status().load.kv_pages_cached, 3);
    ease(&mut bench, Relief::Prefixes);
    assert_eq!(bench.engine.status().load.kv_pages_cached, 0);
    bench.finish();
    drop(kept);
    assert_eq!(running.transcript(), crate::tests::equality::alone(&long));
}

#[test]
fn requests_start_one_by_one_and_all_of_them_end() {
    for (relief, most) in [(Relief::Slower, 2), (Relief::Hold, 1)] {
        let mut bench = Bench::new(HashModel::new(), settings(64, 64, 4));
        ease(&mut bench, relief);
        let mut request = tokens(vec![5; 40], 12);
        request.limits.ignore_eos = true;
        let clients: Vec<Client> = (0..6).map(|_| bench.ask(request.clone()).unwrap()).collect();
        bench.step();
        assert_eq!(bench.run_loop.running.len(), 1, "{relief}");
        ease(&mut bench, relief);
        bench.step();
        assert_eq!(bench.run_loop.running.len(), most, "{relief}");
        // Nobody looks any more, and still nobody waits for ever.
        bench.finish();
        for client in clients {
            assert_eq!(client.transcript(), crate::tests::equality::alone(&request));
        }
        ease(&mut bench, Relief::None);
        let clients: Vec<Client> = (0..3).map(|_| bench.ask(request.clone()).unwrap()).collect();
        bench.step();
        assert_eq!(bench.run_loop.running.len(), 3);
        bench.finish();
        drop(clients);
    }
}
