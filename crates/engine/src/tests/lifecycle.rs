//! Cancelling, deadlines, draining, stopping, failing, health.

use std::time::Duration;

use futures::FutureExt;
use protocol::{Event, Failure, GenerateRequest, Health, Inference, Phase, Prompt, Refusal, TenantId};

use super::bench::{Bench, Transcript, settings, tokens};
use super::model::{HashModel, NAN, POISON};
use crate::StopReport;

fn bench() -> Bench {
    Bench::new(HashModel::new(), settings(16, 32, 2))
}

fn endless(prompt: Vec<u32>, max: u32) -> GenerateRequest {
    let mut request = tokens(prompt, max);
    request.limits.ignore_eos = true;
    request
}

fn count(counters: &[(String, u64)], label: &str) -> u64 {
    counters.iter().find(|(name, _)| name == label).unwrap().1
}

#[test]
fn dropping_the_stream_cancels_at_every_stage_within_one_step() {
    let mut bench = bench();
    let decoding = bench.ask(endless(vec![1; 3], 100)).unwrap();
    bench.step();
    bench.step();
    let reading = bench.ask(endless(vec![2; 100], 100)).unwrap();
    bench.step();
    let queued = bench.ask(endless(vec![3], 100)).unwrap();
    bench.step();
    let load = bench.engine.status().load;
    assert_eq!((load.running, load.queued), (2, 1));
    drop((decoding, reading, queued));
    bench.step();
    let status = bench.engine.status();
    assert_eq!((status.load.running, status.load.queued, status.load.kv_pages_used), (0, 0, 0));
    for stage in ["queued", "prefill", "decode"] {
        assert_eq!(count(&status.counters.cancelled, stage), 1, "{stage}");
    }
    assert_eq!(status.counters.completed.iter().map(|(_, n)| n).sum::<u64>(), 0);
}

#[test]
fn a_dropped_future_of_a_long_prompt_gives_its_place_back() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let _inside = runtime.enter();
    let bench = bench();
    let request = GenerateRequest::new("long", Prompt::Text("tide ".repeat(4000)));
    assert!(bench.engine.generate(request).now_or_never().is_none());
    let status = bench.engine.status();
    assert_eq!((status.load.queued, count(&status.counters.cancelled, "preparing")), (0, 1));
}

#[test]
fn a_deadline_ends_a_request_wherever_it_is() {
    let mut bench = bench();
    let late =
        |millis| GenerateRequest { deadline: Some(Duration::from_millis(millis)), ..endless(vec![1; 5], 50) };
    let running = bench.ask(late(35)).unwrap();
    let other = bench.ask(endless(vec![2; 5], 50)).unwrap();
    let queued = bench.ask(late(25)).unwrap();
    bench.finish();
    let end = Some(Event::Failed(Failure::DeadlineExceeded));
    let running = running.transcript();
    assert_eq!(running.end, end);
    assert_eq!(running.said[0].tokens.len(), 4);
    assert_eq!(queued.transcript(), Transcript { said: vec![], end });
    assert!(matches!(other.transcript().end, Some(Event::Done { .. })));
    assert_eq!(count(&bench.engine.status().counters.failed, "deadline_exceeded"), 2);
}

#[test]
fn what_cannot_meet_its_deadline_is_refused_before_anything_is_spent_on_it() {
    let mut bench = bench();
    // Reading takes a second for every ten tokens, as far as the engine has seen.
    for rows in [1, 40, 1, 80, 1] {
        bench.run_loop.step_time.observe(rows, 0.1 * rows as f64);
    }
    let steps = bench.engine.status().counters.steps;
    let ask = |seconds, text: u32| {
        let deadline = Some(Duration::from_secs(seconds));
        bench.ask(GenerateRequest { deadline, ..endless(vec![text; 70], 1) }).unwrap()
    };
    let (late, timely) = (ask(3, 1), ask(9, 2));
    bench.finish();
    let Some(Event::Failed(failure @ Failure::DeadlineOutOfReach { .. })) = late.transcript().end else {
        panic!("it was not refused");
    };
    assert!(failure.is_late());
    assert!(matches!(timely.transcript().end, Some(Event::Done { .. })));
    let counters = bench.engine.status().counters;
    assert_eq!(counters.prompt_tokens, 70, "nothing was read of the other");
    assert!(counters.steps > steps);
    assert_eq!(count(&counters.failed, "deadline_exceeded"), 1);
    // What others have read of its prompt already takes no time.
    let again = GenerateRequest { deadline: Some(Duration::from_secs(3)), ..endless(vec![2; 70], 1) };
    let again = bench.ask(again).unwrap();
    bench.finish();
    assert!(matches!(again.transcript().end, Some(Event::Done { .. })));
}

#[test]
fn prompts_that_wait_are_bounded_in_bytes_before_they_are_read() {
    let bench =
        Bench::new(HashModel::new(), crate::EngineSettings { queue_bytes: 100, ..settings(16, 32, 2) });
    let waiting = bench.ask(endless(vec![1; 20], 1)).unwrap();
    let text = "a text that is longer than what there is room for beside the other one";
    let refused = bench.ask(GenerateRequest { prompt: Prompt::Text(text.to_owned()), ..endless(vec![1], 1) });
    assert!(matches!(refused.map(|_| ()), Err(Refusal::QueueFull { queued: 2, .. })));
    drop(waiting);
    assert_eq!(bench.engine.status().load.queued, 1, "what was refused holds no room");
}

#[test]
fn a_full_queue_refuses_before_the_prompt_is_looked_at() {
    let mut settings = settings(16, 32, 2);
    settings.queue_requests = 3;
    let bench = Bench::new(HashModel::new(), settings);
    let waiting: Vec<_> = (0..3).map(|_| bench.ask(endless(vec![1], 1)).unwrap()).collect();
    // Reading this prompt would fail: nothing can be tokenised without a chat template.
    let request = GenerateRequest { prompt: Prompt::Chat(protocol::Chat::default()), ..endless(vec![1], 1) };
    let refused = bench.ask(request).map(|_| ());
    assert_eq!(refused, Err(Refusal::QueueFull { queued: 3, retry_after: Duration::from_secs(1) }));
    assert_eq!(count(&bench.engine.status().counters.refused, "queue_full"), 1);
    drop(waiting);
}

#[test]
fn a_drain_refuses_newcomers_and_ends_with_the_last_request() {
    let mut bench = bench();
    let client = bench.ask(endless(vec![1], 3)).unwrap();
    assert!(bench.engine.drain().now_or_never().is_none());
    assert!(matches!(bench.ask(tokens(vec![1], 1)).map(|_| ()), Err(Refusal::NotReady { .. })));
    assert_eq!(bench.engine.status().phase, Phase::Draining);
    bench.finish();
    assert!(bench.engine.drain().now_or_never().is_some());
    assert!(matches!(client.transcript().end, Some(Event::Done { .. })));
}

#[test]
fn a_stop_fails_what_does_not_end_within_the_grace() {
    let bench = bench();
    let short = bench.ask(endless(vec![1], 3)).unwrap();
    let long = bench.ask(endless(vec![1], 300)).unwrap();
    let queued = bench.ask(endless(vec![1], 300)).unwrap();
    let Bench { engine, mut run_loop, clock } = bench;
    let mut stop = Box::pin(engine.stop(Duration::from_millis(50)));
    assert!(stop.as_mut().now_or_never().is_none());
    while run_loop.listen() {
        run_loop.step();
        clock.advance(Duration::from_millis(10));
    }
    run_loop.end();
    assert_eq!(stop.now_or_never(), Some(StopReport { aborted: 2 }));
    assert!(matches!(short.transcript().end, Some(Event::Done { .. })));
    for client in [long, queued] {
        assert_eq!(client.transcript().end, Some(Event::Failed(Failure::ShuttingDown)));
    }
    assert_eq!(engine.status().phase, Phase::Stopped);
    assert_eq!(engine.status().load.kv_pages_used, 0);
}

#[test]
fn a_request_that_breaks_the_model_fails_alone() {
    for (poison, reason) in [(POISON, "poison was read"), (NAN, "no token to choose from")] {
        let alone = |prompt: Vec<u32>| {
            let mut bench = bench();
            let client = bench.ask(endless(prompt, 9)).unwrap();
            bench.finish();
            client.transcript()
        };
        let expected = alone(vec![1, 2]);
        let mut bench = bench();
        let good = bench.ask(endless(vec![1, 2], 9)).unwrap();
        bench.step();
        let bad = bench.ask(endless(vec![7, poison, 8], 9)).unwrap();
        bench.step();
        let Health::Degraded(reasons) = bench.engine.status().health else { panic!("not degraded") };
        assert!(reasons[0].contains(reason), "{reasons:?}");
        bench.finish();
        let end = bad.transcript().end;
        assert!(
            matches!(&end, Some(Event::Failed(Failure::Engine { message })) if message.contains(reason)),
            "{end:?}"
        );
        assert_eq!(good.transcript(), expected);
        bench.clock.advance(Duration::from_secs(61));
        assert_eq!(bench.engine.status().health, Health::Healthy);
    }
}

#[test]
fn steps_that_fail_in_a_row_make_the_engine_unhealthy_until_one_succeeds() {
    let mut bench = bench();
    for _ in 0..3 {
        let client = bench.ask(endless(vec![POISON, 1], 9)).unwrap();
        bench.finish();
        assert!(matches!(client.transcript().end, Some(Event::Failed(_))));
    }
    assert!(matches!(bench.engine.status().health, Health::Unhealthy(_)));
    let client = bench.ask(endless(vec![1], 1)).unwrap();
    bench.finish();
    assert!(matches!(client.transcript().end, Some(Event::Done { .. })));
    assert!(matches!(bench.engine.status().health, Health::Degraded(_)));
}

#[test]
fn no_progress_with_work_to_do_is_unhealthy_and_no_work_is_not() {
    let mut bench = bench();
    bench.clock.advance(Duration::from_secs(3600));
    assert_eq!(bench.engine.status().health, Health::Healthy);
    let _client = bench.ask(endless(vec![1], 100)).unwrap();
    bench.step();
    bench.clock.advance(Duration::from_secs(29));
    assert_eq!(bench.engine.status().health, Health::Healthy);
    bench.clock.advance(Duration::from_secs(2));
    assert!(matches!(bench.engine.status().health, Health::Unhealthy(_)));
    bench.step();
    assert_eq!(bench.engine.status().health, Health::Healthy);
}

#[test]
fn positions_in_the_queue_are_told_when_they_change() {
    let mut bench = bench();
    let mut clients: Vec<_> = (0..5).map(|i| bench.ask(endless(vec![1], 2 + 2 * i)).unwrap()).collect();
    bench.finish();
    let positions = |events: &[Event]| -> Vec<u32> {
        events
            .iter()
            .filter_map(|e| if let Event::Queued { ahead } = e { Some(*ahead) } else { None })
            .collect()
    };
    // Unread positions are replaced, so that only the last one before the start remains.
    assert!(positions(clients[0].read()).is_empty());
    assert_eq!(positions(clients[4].read()), [0]);
    assert!(bench.engine.status().load.oldest_queued_seconds == 0.0);
}

#[test]
fn times_and_counts_are_measured() {
    let mut bench = bench();
    let _clients: Vec<_> = (0..3)
        .map(|i| {
            bench
                .ask(GenerateRequest { tenant: TenantId("a".to_owned()), ..endless(vec![i; 40], 5) })
                .unwrap()
        })
        .collect();
    bench.step();
    assert!(bench.engine.status().load.oldest_queued_seconds > 0.0);
    bench.finish();
    let status = bench.engine.status();
    assert_eq!((status.counters.accepted, count(&status.counters.completed, "length")), (3, 3));
    assert_eq!((status.counters.prompt_tokens, status.counters.generated_tokens), (120, 15));
    let total = |histogram: &protocol::status::Histogram| histogram.counts.iter().sum::<u64>();
    let latency = &status.latency;
    assert_eq!(total(&latency.time_to_first_token), 3);
    assert_eq!((total(&latency.request), total(&latency.queue), total(&latency.inter_token)), (3, 3, 12));
    assert_eq!(
        (total(&latency.step), status.counters.steps),
        (status.counters.steps, total(&latency.step_tokens))
    );
}
