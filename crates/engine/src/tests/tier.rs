//! Pages that leave memory and come back: what is found, by whom, also by the next engine, and that it changes no answer.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use memory::ladder::{Leftovers, Writing};
use memory::rung::{HostRung, Rung};
use memory::{Ladder, LadderSettings};
use proptest::prelude::*;
use protocol::{Adjustment, Event, GenerateRequest, Inference, Priority, TenantId};

use super::bench::{Bench, Client, settings, tokens};
use super::equality::{alone, requests};
use super::model::HashModel;
use crate::{EngineSettings, KvTier};

/// Bytes that may leave memory, and those that may be on their way.
fn tier(below_bytes: usize, host_bytes: usize, identity: &str) -> KvTier {
    let settings = LadderSettings {
        host_bytes,
        below_bytes,
        writing: Writing::Through,
        leftovers: Leftovers::Keep,
        ..LadderSettings::default()
    };
    let rung: Arc<dyn Rung> = Arc::new(HostRung::new());
    let ladder = Ladder::open(&settings, Some(rung)).unwrap();
    KvTier::new(ladder, identity).with_patience(Duration::MAX)
}

fn bench(pages: usize, tier: &KvTier) -> Bench {
    let settings = EngineSettings { tier: Some(tier.clone()), ..settings(pages, 64, 4) };
    Bench::new(HashModel::new(), settings)
}

/// Steps until nothing is left to do, giving the ladder's threads time.
fn finish(bench: &mut Bench) {
    for _ in 0..2_000_000 {
        bench.run_loop.obey_all();
        if !bench.run_loop.has_work() {
            return;
        }
        bench.step();
        std::thread::yield_now();
    }
    panic!("the engine does not come to an end");
}

/// Lets the engine have nothing to do for as long as it takes to save all pages.
fn idle(bench: &mut Bench) {
    while bench.run_loop.save() {
        std::thread::yield_now();
    }
}

fn cached(client: &mut Client) -> u32 {
    match client.read().last() {
        Some(Event::Done { usage, .. }) => usage.cached_tokens,
        other => panic!("{other:?}"),
    }
}

fn serve(bench: &mut Bench, request: GenerateRequest) -> u32 {
    let mut client = bench.ask(request.clone()).unwrap();
    finish(bench);
    let cached = cached(&mut client);
    assert_eq!(client.transcript(), alone(&request), "the answer is the same");
    cached
}

fn prompt(symbol: u32) -> GenerateRequest {
    tokens([vec![symbol; 320], vec![1, 2, 3]].concat(), 4)
}

#[test]
fn what_left_memory_comes_back() {
    let tier = tier(1 << 30, 1 << 20, "a model");
    let mut bench = bench(14, &tier);
    for symbol in 0..6 {
        assert_eq!(serve(&mut bench, prompt(symbol)), 0);
    }
    idle(&mut bench);
    for symbol in 0..6 {
        assert_eq!(serve(&mut bench, prompt(symbol)), 320, "{symbol}");
    }
    let status = bench.engine.status();
    assert!(status.tier.written >= 50 && status.tier.loaded >= 50, "{:?}", status.tier);
    assert_eq!((status.tier.faults, status.load.kv_pages_used), (0, 0));
}

#[test]
fn the_next_engine_finds_what_the_last_one_read_and_another_model_does_not() {
    let tier = tier(1 << 30, 1 << 20, "a model");
    let mut first = bench(64, &tier);
    assert_eq!(serve(&mut first, prompt(5)), 0);
    idle(&mut first);
    drop(first);
    let mut second = bench(64, &tier);
    assert_eq!(serve(&mut second, prompt(5)), 320);
    assert_eq!(second.engine.status().counters.prompt_tokens, 3);
    let other = KvTier::new(tier.ladder_of_tests(), "another model");
    let mut third = bench(64, &other);
    assert_eq!(serve(&mut third, prompt(5)), 0);
}

#[test]
fn tenants_and_salts_share_nothing_below_memory_either() {
    let tier = tier(1 << 30, 1 << 20, "a model");
    let ask = |tenant: &str, salt: Option<&str>| GenerateRequest {
        tenant: TenantId(tenant.to_owned()),
        cache_salt: salt.map(str::to_owned),
        ..prompt(5)
    };
    let places = [("a", None), ("b", None), ("ab", None), ("a", Some("b")), ("a", Some("c"))];
    for (tenant, salt) in places {
        let mut bench = bench(64, &tier);
        assert_eq!(serve(&mut bench, ask(tenant, salt)), 0, "{tenant} {salt:?}");
        idle(&mut bench);
    }
    for (tenant, salt) in places {
        assert_eq!(serve(&mut bench(64, &tier), ask(tenant, salt)), 320, "{tenant} {salt:?}");
    }
}

#[test]
fn a_cleared_cache_is_empty_below_too_and_a_cancelled_request_reads_nothing_more() {
    let tier = tier(1 << 30, 1 << 20, "a model");
    let mut engine = bench(64, &tier);
    serve(&mut engine, prompt(5));
    idle(&mut engine);
    let mut next = bench(64, &tier);
    drop(next.ask(prompt(5)).unwrap());
    finish(&mut next);
    assert_eq!(serve(&mut next, prompt(5)), 320);
    let adjusted = next.engine.adjust(Adjustment::ClearPrefixCache);
    next.run_loop.obey_all();
    assert_eq!(adjusted.now_or_never(), Some(Ok(())));
    assert_eq!(serve(&mut next, prompt(5)), 0);
}

#[test]
fn all_who_come_at_once_find_what_left_memory() {
    let tier = tier(1 << 30, 1 << 20, "a model");
    let mut bench = bench(28, &tier);
    for symbol in 0..8 {
        assert_eq!(serve(&mut bench, prompt(symbol)), 0);
    }
    idle(&mut bench);
    let mut clients: Vec<Client> = (0..8).map(|symbol| bench.ask(prompt(symbol)).unwrap()).collect();
    finish(&mut bench);
    assert_eq!(clients.iter_mut().map(cached).collect::<Vec<_>>(), [320; 8]);
}

#[test]
fn what_had_to_give_way_comes_back_without_being_computed_again() {
    let tier = tier(1 << 30, 1 << 20, "a model");
    let mut bench = bench(24, &tier);
    let patient = GenerateRequest { priority: Priority::Low, ..tokens(vec![7; 400], 200) };
    let client = bench.ask(patient.clone()).unwrap();
    (0..40).for_each(|_| bench.step());
    // One after the other, they leave no page of it in memory.
    for symbol in 0..4 {
        let urgent = tokens(vec![symbol; 640], 4);
        let client = bench.ask(GenerateRequest { priority: Priority::High, ..urgent.clone() }).unwrap();
        (0..40).for_each(|_| bench.step());
        assert_eq!(client.transcript(), alone(&urgent));
    }
    finish(&mut bench);
    assert_eq!(client.transcript(), alone(&patient));
    let status = bench.engine.status();
    assert!(status.counters.preemptions > 0 && status.tier.loaded >= 12, "{:?}", status.tier);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(40) })]

    #[test]
    fn a_tier_changes_no_bit_whatever_it_has_room_for(
        requests in prop::collection::vec((requests(), 0u32..3, 0usize..30), 1..10),
        pages in 8usize..24,
        below in 0usize..100_000,
        buffers in 0usize..40_000,
        restart in any::<bool>(),
    ) {
        let tier = tier(below, buffers, "a model");
        let mut engine = bench(pages, &tier);
        for round in 0..2 {
            let mut clients = Vec::new();
            for (request, symbol, pause) in &requests {
                let mut request = request.clone();
                if let protocol::Prompt::Tokens(prompt) = &mut request.prompt {
                    let own = prompt.split_off(prompt.len().min(40));
                    *prompt = [vec![*symbol; 96], own, vec![3]].concat();
                }
                clients.push((engine.ask(request.clone()).unwrap(), alone(&request)));
                (0..*pause).for_each(|_| engine.step());
            }
            finish(&mut engine);
            for (client, expected) in clients {
                prop_assert_eq!(client.transcript(), expected, "round {}", round);
            }
            prop_assert_eq!(engine.engine.status().load.kv_pages_used, 0);
            engine.run_loop.save();
            if restart {
                engine = bench(pages, &tier);
            }
        }
    }
}
