//! Reuse over a scripted inference.

use std::time::Duration;

use futures::{FutureExt, StreamExt};
use protocol::scripted::{Gate, Script, Scripted};
use protocol::{Clip, Event, Failure, GenerateRequest, Image, Prompt, Relief, TenantId};

use super::*;
use crate::tests::bench::ManualClock;

struct Bench {
    scripted: Scripted,
    reuse: Reuse,
    clock: Arc<ManualClock>,
}

fn bench(scripted: Scripted, kept_bytes: usize) -> Bench {
    let clock = Arc::new(ManualClock::default());
    let settings =
        ReuseSettings { kept_bytes, kept_for: Duration::from_secs(60), ..ReuseSettings::default() };
    let reuse = Reuse::timed(Arc::new(scripted.clone()), settings, clock.clone());
    Bench { scripted, reuse, clock }
}

fn asking(text: &str) -> GenerateRequest {
    let mut request = GenerateRequest::new("a", Prompt::Text(text.to_owned()));
    request.sampling.seed = Some(7);
    request
}

impl Bench {
    fn ask(&self, request: GenerateRequest) -> Generation {
        self.reuse.generate(request).now_or_never().unwrap().unwrap()
    }

    /// How often the inference behind was asked.
    fn runs(&self) -> usize {
        self.scripted.ledger().accepted.len()
    }
}

fn ready(generation: &mut Generation) -> Vec<Event> {
    std::iter::from_fn(|| generation.next().now_or_never().flatten()).collect()
}

fn text(events: &[Event]) -> String {
    let text =
        |event: &Event| if let Event::Delta(delta) = event { delta.text.clone() } else { String::new() };
    events.iter().map(text).collect()
}

#[test]
fn the_same_request_runs_once_and_everyone_hears_all_of_it() {
    let gate = Gate::new();
    let script = Script::new().queued(1).started().say("Hel").gate(&gate).say("lo").finish_and_done();
    let bench = bench(Scripted::new().then(script), 0);
    let mut first = bench.ask(asking("hi"));
    let mut heard = ready(&mut first);
    let mut second = bench.ask(asking("hi"));
    assert_eq!((first.reused, second.reused), (None, Some(Reused::InFlight)));
    assert_eq!(ready(&mut second), heard);
    gate.open();
    // The one that came first has left the reading to the other.
    let rest = ready(&mut second);
    heard.extend(ready(&mut first));
    assert_eq!(text(&heard), "Hello");
    assert!(matches!(heard.last(), Some(Event::Done { .. })) && rest.last() == heard.last());
    assert_eq!((bench.runs(), bench.reuse.status().reuse.joined), (1, 1));
}

#[tokio::test]
async fn whoever_waits_is_woken_though_another_reads() {
    let gate = Gate::new();
    let script = Script::new().started().gate(&gate).say("x").finish_and_done();
    let bench = bench(Scripted::new().then(script), 0);
    let listen = |generation: Generation| tokio::spawn(generation.collect::<Vec<Event>>());
    let listening: Vec<_> = (0..3).map(|_| listen(bench.ask(asking("hi")))).collect();
    tokio::task::yield_now().await;
    // One of them leaves while all wait for news: the others must not wait for it.
    listening[0].abort();
    tokio::task::yield_now().await;
    gate.open();
    for (index, listening) in listening.into_iter().enumerate().skip(1) {
        assert_eq!(text(&listening.await.unwrap()), "x", "reader {index}");
    }
}

#[test]
fn the_run_is_cancelled_when_the_last_has_gone_and_runs_anew_for_the_next() {
    let gate = Gate::new();
    let script = Script::new().started().gate(&gate).say("x").finish_and_done();
    let bench = bench(Scripted::new().always(script), 0);
    let (first, second) = (bench.ask(asking("hi")), bench.ask(asking("hi")));
    drop(first);
    assert_eq!(bench.scripted.ledger().active(), 1);
    drop(second);
    assert_eq!(bench.scripted.ledger().active(), 0);
    assert_eq!(bench.ask(asking("hi")).reused, None);
    assert_eq!(bench.runs(), 2);
}

#[test]
fn what_differs_in_anything_that_counts_is_run() {
    let gate = Gate::new();
    let script = Script::new().started().gate(&gate).finish_and_done();
    let bench = bench(Scripted::new().always(script), 1 << 20);
    let clip = |fps| Clip { frames: vec![Image { bytes: Arc::from([1_u8]) }; 2], fps };
    let differing = [
        asking("hi"),
        asking("ho"),
        GenerateRequest { tenant: TenantId("other".to_owned()), ..asking("hi") },
        GenerateRequest { priority: protocol::Priority::High, ..asking("hi") },
        GenerateRequest { sharing: Sharing::None, ..asking("hi") },
        GenerateRequest { deadline: Some(Duration::from_secs(9)), ..asking("hi") },
        GenerateRequest { logprobs: Some(1), ..asking("hi") },
        GenerateRequest { images: vec![Image { bytes: Arc::from([1_u8]) }], ..asking("hi") },
        GenerateRequest { images: vec![Image { bytes: Arc::from([2_u8]) }], ..asking("hi") },
        GenerateRequest { clips: vec![clip(None)], ..asking("hi") },
        GenerateRequest { clips: vec![clip(Some(4.0))], ..asking("hi") },
        GenerateRequest::new("free", Prompt::Text("hi".to_owned())),
        GenerateRequest::new("free", Prompt::Text("hi".to_owned())),
    ];
    let expected = differing.len();
    let _listening: Vec<Generation> = differing.into_iter().map(|request| bench.ask(request)).collect();
    assert_eq!(bench.runs(), expected);
}

#[test]
fn kept_answers_are_given_until_they_are_old_or_pushed_out() {
    let said = |text: &str| Script::text(&[text, "!"]);
    let bench = bench(Scripted::new().then(said("one")).then(said("two")).always(said("more")), 4_000);
    let heard = |request| {
        let mut generation = bench.ask(request);
        let events = ready(&mut generation);
        (text(&events), generation.reused)
    };
    assert_eq!(heard(asking("a")), ("one!".to_owned(), None));
    assert_eq!(heard(asking("a")), ("one!".to_owned(), Some(Reused::Kept)));
    // The deadline does not change the answer.
    let hurried = GenerateRequest { deadline: Some(Duration::from_secs(1)), ..asking("a") };
    assert_eq!(heard(hurried), ("one!".to_owned(), Some(Reused::Kept)));
    bench.clock.advance(Duration::from_secs(60));
    assert_eq!(heard(asking("a")), ("two!".to_owned(), None));
    for other in 0..100 {
        heard(asking(&format!("b{other}")));
        let reuse = bench.reuse.status().reuse;
        assert!(reuse.kept_bytes <= 4_000 && reuse.kept > 0, "{reuse:?}");
    }
    assert_eq!(heard(asking("a")), ("more!".to_owned(), None));
    bench.reuse.adjust(Adjustment::ClearResults).now_or_never().unwrap().unwrap();
    assert_eq!(heard(asking("a")).1, None);
    let ease = |relief| bench.reuse.adjust(Adjustment::Relief(relief)).now_or_never().unwrap().unwrap();
    assert_eq!(heard(asking("a")).1, Some(Reused::Kept));
    ease(Relief::Results);
    assert_eq!((heard(asking("a")).1, heard(asking("a")).1), (None, None));
    assert_eq!(bench.reuse.status().reuse.kept_bytes, 0);
    ease(Relief::None);
    assert_eq!((heard(asking("a")).1, heard(asking("a")).1), (None, Some(Reused::Kept)));
    bench.reuse.adjust(Adjustment::KeepResults { bytes: 0 }).now_or_never().unwrap().unwrap();
    assert_eq!((heard(asking("a")).1, heard(asking("a")).1), (None, None));
}

#[test]
fn a_similar_answer_is_given_only_to_those_who_ask_and_is_marked() {
    let bench = bench(Scripted::new().always(Script::text(&["yes"])), 1 << 20);
    let long = "Please tell me, in two or three short sentences, why the sea rises and falls twice a day at most coasts";
    ready(&mut bench.ask(asking(long)));
    let other = long.replace("Please tell", "please, tell").replace("short ", "");
    assert_eq!(bench.ask(asking(&other)).reused, None);
    let similar = |least, tenant: &str| {
        let sharing = Sharing::Similar { least };
        let tenant = TenantId(tenant.to_owned());
        bench
            .ask(GenerateRequest { sharing, tenant, ..asking(&long.replace("most coasts", "most shores")) })
            .reused
    };
    let found = similar(0.8, "default");
    assert!(
        matches!(found, Some(Reused::Similar { likeness }) if (0.8..1.0).contains(&likeness)),
        "{found:?}"
    );
    assert_eq!(similar(0.8, "other"), None);
    assert_eq!(similar(1.0, "default"), None);
}

#[test]
fn failures_and_broken_runs_are_told_to_all_and_not_kept() {
    let failing = Script::new().started().fail(Failure::ShuttingDown);
    let bench = bench(
        Scripted::new()
            .then(failing)
            .then(Script::refuse(Refusal::NotReady { reason: "x".to_owned() }))
            .always(Script::text(&["ok"])),
        1 << 20,
    );
    let (mut first, mut second) = (bench.ask(asking("a")), bench.ask(asking("a")));
    assert_eq!(ready(&mut first), ready(&mut second));
    assert!(matches!(bench.reuse.generate(asking("a")).now_or_never(), Some(Err(Refusal::NotReady { .. }))));
    assert_eq!(text(&ready(&mut bench.ask(asking("a")))), "ok");
}
