//! Prompts that begin alike: what is shared, and that it changes no answer.

use futures::FutureExt;
use proptest::prelude::*;
use protocol::{Adjustment, Event, GenerateRequest, Inference, Priority, Prompt, TenantId};

use super::bench::{Bench, Client, settings, tokens};
use super::equality::{alone, requests};
use super::model::HashModel;
use crate::{EngineSettings, PrefixSharing};

fn of(tenant: &str, request: GenerateRequest) -> GenerateRequest {
    GenerateRequest { tenant: TenantId(tenant.to_owned()), ..request }
}

fn cached(client: &mut Client) -> u32 {
    match client.read().last() {
        Some(Event::Done { usage, .. }) => usage.cached_tokens,
        other => panic!("{other:?}"),
    }
}

/// Serves one request to its end and returns what was cached of it.
fn serve(bench: &mut Bench, request: GenerateRequest) -> u32 {
    let mut client = bench.ask(request).unwrap();
    bench.finish();
    cached(&mut client)
}

/// Requests whose prompts begin with the same pages, more or less of them.
fn alike() -> impl Strategy<Value = (GenerateRequest, usize)> {
    let beginning = prop::collection::vec(0u32..2, 0..5);
    let priority = prop_oneof![Just(Priority::High), Just(Priority::Normal), Just(Priority::Low)];
    (requests(), beginning, priority, 0usize..2, 0usize..30).prop_map(
        |(mut request, beginning, priority, tenant, pause)| {
            if let Prompt::Tokens(prompt) = &mut request.prompt {
                let own = prompt.split_off(prompt.len().min(40));
                prompt.clear();
                prompt.extend(beginning.iter().flat_map(|symbol| [*symbol; tensor::PAGE_TOKENS]));
                prompt.extend(own);
                prompt.push(3);
            }
            request.priority = priority;
            (of(["a", "b"][tenant], request), pause)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(60) })]

    #[test]
    fn shared_prefixes_change_no_bit_cold_warm_or_partly_evicted(
        requests in prop::collection::vec(alike(), 1..12),
        pages in 8usize..40,
        sequences in 1usize..8,
        extra in 0usize..60,
        sharing in prop_oneof![3 => Just(PrefixSharing::Tenant), 1 => Just(PrefixSharing::Request)],
    ) {
        let settings = EngineSettings { prefix: sharing, ..settings(pages, sequences + extra, sequences) };
        let mut bench = Bench::new(HashModel::new(), settings);
        let mut clients = Vec::new();
        for (request, pause) in &requests {
            clients.push((bench.ask(request.clone()).unwrap(), alone(request)));
            (0..*pause).for_each(|_| bench.step());
        }
        bench.finish();
        for (client, expected) in clients {
            prop_assert_eq!(client.transcript(), expected);
        }
        let status = bench.engine.status();
        prop_assert_eq!((status.load.kv_pages_used, status.load.running), (0, 0));
        if sharing == PrefixSharing::Request {
            prop_assert_eq!((status.counters.prefix_queries, status.counters.prefix_hits), (0, 0));
        }
    }
}

#[test]
fn the_next_turn_of_a_conversation_finds_what_was_read_and_what_was_said() {
    let mut bench = Bench::new(HashModel::new(), settings(64, 64, 4));
    let mut request = tokens((0..70).collect(), 40);
    request.limits.ignore_eos = true;
    let mut client = bench.ask(request.clone()).unwrap();
    bench.finish();
    assert_eq!(cached(&mut client), 0);
    let Prompt::Tokens(mut turn) = request.prompt.clone() else { unreachable!() };
    turn.extend(&client.transcript().said[0].tokens);
    turn.extend([1, 2, 3]);
    request.prompt = Prompt::Tokens(turn);
    // 110 tokens were known, and the last of them was never computed.
    assert_eq!(serve(&mut bench, request), 96);
    let counters = bench.engine.status().counters;
    assert_eq!((counters.prefix_queries, counters.prefix_hits), (70 + 113, 96));
}

#[test]
fn the_last_token_of_a_prompt_is_computed_even_if_all_of_it_is_held() {
    let mut bench = Bench::new(HashModel::new(), settings(64, 64, 4));
    let request = tokens(vec![5; 64], 1);
    assert_eq!(serve(&mut bench, request.clone()), 0);
    assert_eq!(serve(&mut bench, request), 32);
}

#[test]
fn tenants_and_salts_share_nothing() {
    let mut bench = Bench::new(HashModel::new(), settings(64, 64, 4));
    let ask = |tenant: &str, salt: Option<&str>| {
        let request = of(tenant, tokens(vec![5; 70], 1));
        GenerateRequest { cache_salt: salt.map(str::to_owned), ..request }
    };
    for (tenant, salt, held) in [
        ("a", None, 0),
        ("b", None, 0),
        ("a", Some("x"), 0),
        ("a", Some("y"), 0),
        ("a", None, 64),
        ("a", Some("x"), 64),
        ("b", None, 64),
    ] {
        let before = bench.engine.status().counters.prompt_tokens;
        assert_eq!(serve(&mut bench, ask(tenant, salt)), held, "{tenant} {salt:?}");
        // The work, and so the time, is that of a request that nobody has asked before.
        assert_eq!(bench.engine.status().counters.prompt_tokens - before, u64::from(70 - held));
    }
}

#[test]
fn without_sharing_a_request_finds_nothing() {
    let settings = EngineSettings { prefix: PrefixSharing::Request, ..settings(64, 64, 4) };
    let mut bench = Bench::new(HashModel::new(), settings);
    for _ in 0..2 {
        assert_eq!(serve(&mut bench, tokens(vec![5; 70], 1)), 0);
    }
}

#[test]
fn a_cleared_cache_holds_nothing_and_what_runs_goes_on() {
    let mut bench = Bench::new(HashModel::new(), settings(64, 64, 4));
    let mut long = tokens(vec![5; 70], 60);
    long.limits.ignore_eos = true;
    let client = bench.ask(long.clone()).unwrap();
    (0..4).for_each(|_| bench.step());
    let adjusted = bench.engine.adjust(Adjustment::ClearPrefixCache);
    bench.run_loop.obey_all();
    assert_eq!(adjusted.now_or_never(), Some(Ok(())));
    bench.finish();
    assert_eq!(client.transcript(), alone(&long));
    assert_eq!(
        bench.engine.status().load.kv_pages_cached,
        0,
        "what follows a page that is forgotten is not kept"
    );
    assert_eq!(serve(&mut bench, tokens(vec![5; 70], 1)), 0);
    assert_eq!(serve(&mut bench, tokens(vec![5; 70], 1)), 64);
}

#[test]
fn those_who_read_the_same_at_the_same_time_compute_it_once() {
    let mut bench = Bench::new(HashModel::new(), settings(64, 48, 4));
    let mut clients: Vec<_> =
        (0..4).map(|i| bench.ask(tokens([vec![5; 320], vec![i; 9]].concat(), 1)).unwrap()).collect();
    bench.finish();
    let computed = bench.engine.status().counters.prompt_tokens;
    let cached: u32 = clients.iter_mut().map(cached).sum();
    assert_eq!(computed + u64::from(cached), 4 * 329);
    assert!(computed < 2 * 329, "{computed} tokens were computed");
}
