//! The double is as strict as it says.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::SystemTime;

use super::*;
use crate::queue::store::Facts;

fn accept(store: &MemoryStore, id: u64) -> Result<Position, StoreError> {
    let accepted = SystemTime::UNIX_EPOCH;
    let key = Some(Arc::from(format!("key {id}")));
    let facts = Facts { owner: Arc::from("me"), level: 0, cost: 1, accepted, deadline: None, key };
    store.note(Entry::Accepted { id: TicketId(id), facts: &facts, item: &[id as u8] })
}

fn ids(recovered: &Recovered) -> Vec<u64> {
    recovered.items.iter().map(|item| item.id.0).collect()
}

#[tokio::test]
async fn only_what_was_asked_for_survives() {
    let store = MemoryStore::new();
    let first = accept(&store, 1).unwrap();
    accept(&store, 2).unwrap();
    assert_eq!(ids(&store.survivors()), [0; 0]);
    store.settled(first).await.unwrap();
    let (next, recovered) = store.crash();
    assert_eq!((ids(&recovered), recovered.next_id), (vec![1], 2));
    assert!(matches!(accept(&store, 3), Err(StoreError::Failed { .. })), "the old one is gone");
    let done = next.note(Entry::Done { id: TicketId(1) }).unwrap();
    next.settled(done).await.unwrap();
    let (_, recovered) = next.crash();
    assert_eq!(recovered.used_keys, [(Arc::from("key 1"), TicketId(1), SystemTime::UNIX_EPOCH)]);
    assert_eq!((ids(&recovered), recovered.next_id), (Vec::new(), 2));
}

#[tokio::test]
async fn a_held_store_waits_to_be_told() {
    let store = MemoryStore::held();
    let position = accept(&store, 1).unwrap();
    let clone = store.clone();
    let waiting = tokio::spawn(async move { clone.settled(position).await });
    tokio::task::yield_now().await;
    assert_eq!((store.unsettled(), waiting.is_finished()), (1, false));
    store.settle();
    waiting.await.unwrap().unwrap();
    assert_eq!(ids(&store.survivors()), [1]);
    assert_eq!((store.usage().live_bytes, store.unsettled()), (1, 0));
}

#[tokio::test]
async fn a_full_store_refuses_and_takes_more_once_there_is_room() {
    let store = MemoryStore::new();
    let kept = accept(&store, 1).unwrap();
    store.settled(kept).await.unwrap();
    store.fill();
    let refused = accept(&store, 2).unwrap();
    let acknowledged = store.note(Entry::Done { id: TicketId(1) }).unwrap();
    for position in [refused, acknowledged] {
        assert!(matches!(store.settled(position).await, Err(StoreError::Full { .. })));
    }
    assert_eq!(ids(&store.survivors()), [1]);
    store.make_room();
    let last = accept(&store, 2).and_then(|_| store.note(Entry::Done { id: TicketId(1) })).unwrap();
    store.settled(last).await.unwrap();
    store.settled(kept).await.unwrap();
    assert_eq!(ids(&store.survivors()), [2]);
}

#[tokio::test]
async fn a_store_that_failed_keeps_what_was_settled() {
    let store = MemoryStore::new();
    let kept = accept(&store, 1).unwrap();
    store.settled(kept).await.unwrap();
    let lost = accept(&store, 2).unwrap();
    store.fail("the cable is out");
    let failed = Err(StoreError::Failed { place: "memory".to_owned(), cause: "the cable is out".to_owned() });
    assert_eq!(store.settled(lost).await, failed);
    assert_eq!(store.settled(kept).await, Ok(()));
    assert_eq!(store.note(Entry::Done { id: TicketId(1) }).map(|_| ()), failed);
    assert_eq!(ids(&store.survivors()), [1]);
}

#[tokio::test]
async fn attempts_and_dead_letters_survive() {
    let store = MemoryStore::new();
    let id = TicketId(1);
    accept(&store, 1).unwrap();
    store.note(Entry::Taken { id, attempt: 4 }).unwrap();
    let last = store.note(Entry::Dead { id, cause: "poison" }).unwrap();
    store.settled(last).await.unwrap();
    let (next, recovered) = store.crash();
    assert_eq!((recovered.items[0].attempts, recovered.items[0].dead.as_deref()), (4, Some("poison")));
    let last = next.note(Entry::Revived { id }).unwrap();
    next.settled(last).await.unwrap();
    let (_, recovered) = next.crash();
    assert_eq!((recovered.items[0].attempts, recovered.items[0].dead.as_deref()), (0, None));
}

#[test]
fn a_broken_agreement_panics() {
    let store = MemoryStore::new();
    accept(&store, 1).unwrap();
    store.note(Entry::Dead { id: TicketId(1), cause: "poison" }).unwrap();
    let check = |what: &str, misuse: &dyn Fn()| {
        assert!(catch_unwind(AssertUnwindSafe(misuse)).is_err(), "{what}");
    };
    check("an id twice", &|| drop(accept(&store, 1)));
    check("a dead item is taken", &|| drop(store.note(Entry::Taken { id: TicketId(1), attempt: 1 })));
    check("an unknown item is done", &|| drop(store.note(Entry::Done { id: TicketId(2) })));
    store.note(Entry::Done { id: TicketId(1) }).unwrap();
    check("a done item is revived", &|| drop(store.note(Entry::Revived { id: TicketId(1) })));
    check("an unknown position", &|| {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        drop(runtime.block_on(store.settled(Position(9))));
    });
}
