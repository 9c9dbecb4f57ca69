//! Requests over several replicas: where they go, how they move, and that it shows in nothing.

use std::task::Waker;
use std::time::Duration;

use futures::StreamExt;
use futures::executor::block_on;
use protocol::scripted::{Gate, Script, Scripted};
use protocol::{Chat, Event, Message, Prompt, TenantId};

use super::*;
use crate::tests::bench::{loaded, settings, tokens};
use crate::tests::model::HashModel;
use crate::{Device, Engine, Turns};

fn ask(replicas: &Replicas) -> Generation {
    block_on(replicas.generate(GenerateRequest::new("1", Prompt::Text("hi".to_owned())))).unwrap()
}

fn text(events: &[Event]) -> String {
    let delta = |event: &Event| match event {
        Event::Delta(delta) => delta.text.clone(),
        _ => String::new(),
    };
    events.iter().map(delta).collect()
}

#[test]
fn a_request_goes_where_least_is_to_be_done_or_its_beginning_was_read() {
    let mut book = Book::new(3);
    let at: Vec<usize> = (0..6).map(|_| book.choose(&[], &[])).collect();
    assert_eq!(at, [0; 6], "nothing is counted before it is taken");
    for expected in [0, 1, 2, 0, 1, 2] {
        let at = book.choose(&[], &[]);
        assert_eq!(at, expected);
        book.enter(at, 1);
    }
    book.read(&[7, 8], 2);
    assert_eq!((book.choose(&[7], &[]), book.choose(&[9, 8], &[])), (2, 2));
    assert_eq!(
        (book.choose(&[9], &[]), book.choose(&[7], &[2])),
        (0, 0),
        "what was tried is not tried again"
    );
    book.enter(2, 5);
    assert_eq!(book.choose(&[7], &[]), 0, "a beginning is not worth any wait");
}

#[test]
fn marks_tell_beginnings_and_tenants_apart() {
    let chat = |texts: &[&str]| {
        let messages = texts.iter().map(|text| Message::text("user", *text)).collect();
        GenerateRequest::new("1", Prompt::Chat(Chat { messages, ..Chat::default() }))
    };
    let marks = |request: &GenerateRequest| beginnings::marks(request);
    let [one, more, other] = [&["a"][..], &["a", "b"], &["b"]].map(|texts| marks(&chat(texts)));
    assert_eq!(one, more[..1]);
    assert!(!more.contains(&other[0]));
    let theirs = GenerateRequest { tenant: TenantId("bob".to_owned()), ..chat(&["a"]) };
    assert_ne!(marks(&theirs), one);
    let words = |length| marks(&GenerateRequest::new("1", Prompt::Text("tide ".repeat(length))));
    assert!(words(10).is_empty() && words(10_000).len() == 32 && words(10_000)[..5] == words(600)[..5]);
}

#[test]
fn what_waits_moves_until_loads_are_even() {
    let mut book = Book::new(2);
    let tickets: Vec<u64> = (0..4).map(|_| book.enter(0, 1)).collect();
    let wait = |book: &mut Book, ticket| book.wait(ticket, Waker::noop());
    tickets[..3].iter().for_each(|ticket| assert_eq!(wait(&mut book, *ticket), None));
    assert_eq!(book.rebalance().len(), 2);
    assert_eq!((book.loads(), wait(&mut book, tickets[0])), (vec![2, 2], Some(1)));
    book.settle(tickets[0]);
    assert_eq!(book.loads(), [3, 1], "who was started meanwhile stays");
    book.arrive(tickets[1]);
    book.leave(tickets[1]);
    assert_eq!((book.loads(), wait(&mut book, tickets[2])), (vec![3, 0], None));
    assert_eq!(book.rebalance().len(), 1);
    tickets.iter().for_each(|ticket| drop(book.leave(*ticket)));
    assert_eq!(book.loads(), [0, 0]);
    assert!(book.rebalance().is_empty());
}

#[test]
fn a_request_that_waits_is_served_by_another_replica_and_its_reader_notices_nothing() {
    let gate = Gate::new();
    let slow = Script::new().queued(3).gate(&gate).started().say("late").finish_and_done();
    let (full, idle) = (Scripted::new().always(slow), Scripted::new().always(Script::text(&["now"])));
    let replicas = Replicas::new(vec![Arc::new(full.clone()), Arc::new(idle.clone())]);
    let [mut first, gone, mut second, gone_too] = [0; 4].map(|_| ask(&replicas));
    drop((gone, gone_too));
    for waiting in [&mut first, &mut second] {
        assert_eq!(block_on(waiting.next()), Some(Event::Queued { ahead: 3 }));
        assert!(waiting.next().now_or_never().is_none());
    }
    block_on(replicas.adjust(Adjustment::Rebalance)).unwrap();
    assert_eq!(text(&block_on(first.collect::<Vec<_>>())), "now");
    assert!(second.next().now_or_never().is_none(), "one each is even");
    gate.open();
    assert_eq!(text(&block_on(second.collect::<Vec<_>>())), "late");
    assert_eq!(
        (full.ledger().active(), idle.ledger().active(), replicas.shared.book().loads()),
        (0, 0, vec![0, 0])
    );
}

#[test]
fn a_replica_that_has_no_room_is_passed_over_and_all_are_asked_before_it_is_refused() {
    let full = || Refusal::QueueFull { queued: 3, retry_after: Duration::from_secs(2) };
    let refusing = || Scripted::new().always(Script::refuse(full()));
    let room = Scripted::new().always(Script::text(&["here"]));
    let replicas = Replicas::new(vec![Arc::new(refusing()), Arc::new(room)]);
    (0..3).for_each(|_| assert_eq!(text(&block_on(ask(&replicas).collect::<Vec<_>>())), "here"));
    let none = Replicas::new(vec![Arc::new(refusing()), Arc::new(refusing())]);
    let request = GenerateRequest::new("1", Prompt::Text("hi".to_owned()));
    assert_eq!(block_on(none.generate(request)).unwrap_err(), full());
    assert_eq!(none.shared.book().loads(), [0, 0]);
}

#[test]
fn health_is_that_of_the_model_and_devices_are_told_apart() {
    let (well, hung) = (Scripted::new(), Scripted::new());
    let replicas = Replicas::new(vec![Arc::new(hung.clone()), Arc::new(well)]);
    hung.set_status(|status| status.health = Health::Unhealthy(vec!["it hangs".to_owned()]));
    let told = replicas.status();
    assert_eq!(told.health, Health::Degraded(vec!["0: it hangs".to_owned()]));
    assert_eq!(told.phase, Phase::Ready);
}

fn engines(count: usize) -> Vec<Arc<dyn Inference>> {
    let first = loaded(HashModel::new());
    let engine = |at: usize| {
        let twin = first.twin(Arc::new(tensor::reference::Reference)).unwrap();
        let turns = Turns::on(Device { name: format!("cpu{at}"), ..Device::default() });
        let engine: Arc<dyn Inference> = Engine::start_beside(twin, settings(24, 32, 3), &turns).unwrap();
        engine
    };
    (0..count).map(engine).collect()
}

/// What each of some requests hears that go in at once, while everything that waits is moved about.
fn serve(inference: &dyn Inference) -> Vec<Vec<u32>> {
    let request = |i: u32| {
        let mut request = tokens((0..20 + 5 * (i % 7)).map(|at| (i % 4) + at + 1).collect(), 24);
        request.limits.ignore_eos = true;
        (request.sampling.temperature, request.sampling.seed) = (Some(1.0), Some(u64::from(i)));
        request
    };
    block_on(async {
        let admitted = join_all((0..24).map(|i| inference.generate(request(i)))).await;
        let listen = |generation: Result<Generation, Refusal>| async {
            let (mut ids, mut events) = (Vec::new(), generation.unwrap());
            while let Some(event) = events.next().await {
                inference.adjust(Adjustment::Rebalance).await.unwrap();
                match event {
                    Event::Delta(delta) => ids.extend(delta.tokens),
                    Event::Failed(failure) => panic!("{failure}"),
                    _ => {}
                }
            }
            ids
        };
        join_all(admitted.into_iter().map(listen)).await
    })
}

#[test]
fn replicas_give_the_bits_of_one_engine_however_requests_move() {
    let (one, two) = (engines(1).swap_remove(0), Replicas::new(engines(2)));
    assert_eq!(serve(&two), serve(&*one));
    let Status { devices, models, load, counters, .. } = two.status();
    assert_eq!((devices.len(), models.len(), load.queued), (2, 1, 0));
    assert!(devices.iter().all(|device| device.busy_seconds > 0.0), "both had work: {devices:?}");
    assert_eq!(two.shared.book().loads(), [0, 0]);
    let [completed, cancelled] =
        [counters.completed, counters.cancelled].map(|ends| ends.iter().map(|end| end.1).sum::<u64>());
    assert_eq!((counters.accepted, completed, cancelled), (24, 24, 0), "who moves is one request");
}
