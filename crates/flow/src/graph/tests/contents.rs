//! Fingerprints and sizes of values.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::path::PathBuf;
use std::time::Duration;

use super::*;
use crate::graph::content::fingerprint_of;

fn print(value: impl Content) -> Fingerprint {
    fingerprint_of(&value).unwrap()
}

#[test]
fn fingerprints_are_the_same_everywhere() {
    // The first half of SHA-256 of the bytes of 1 as a u64, and of the length and the bytes of "abc".
    assert_eq!(print(1u64).to_string(), "7c9fa136d4413fa6173637e883b6998d");
    assert_eq!(print("abc".to_owned()), print("abc"));
    assert_eq!(print(vec![1u8, 2]), print([1u8, 2]));
    assert_eq!(print(Arc::<str>::from("abc")), print(Box::new("abc".to_owned())));
    let many: Vec<u32> = (0..1000).collect();
    let mut one_by_one = Digest::new();
    one_by_one.number(1000);
    many.iter().for_each(|number| number.feed(&mut one_by_one));
    assert_eq!(print(many), one_by_one.finish().unwrap(), "blocks feed what single numbers feed");
}

#[test]
fn different_contents_have_different_fingerprints() {
    let prints = [
        print(("ab", "c")),
        print(("a", "bc")),
        print(vec!["ab", "c"]),
        print(vec![vec!["ab"], vec!["c"]]),
        print(vec![vec!["ab", "c"], vec![]]),
        print(None::<u8>),
        print(Some(0u8)),
        print(Ok::<_, u8>(1u8)),
        print(Err::<u8, _>(1u8)),
        print(0.0f64),
        print(-0.0f64),
        print(VecDeque::from([1u16, 2])),
        print([2u16, 1]),
        print(PathBuf::from("abc/d")),
        print(Duration::from_nanos(7)),
        print((true, 'x', 3usize, -3isize, ())),
        print(BTreeMap::from([(1u8, 2u8)])),
    ];
    let different: HashSet<Fingerprint> = prints.into_iter().collect();
    assert_eq!(different.len(), prints.len());
}

#[test]
fn tables_without_an_order_do_not_depend_on_one() {
    let forward: HashMap<u32, String> = (0..100).map(|number| (number, number.to_string())).collect();
    let backward: HashMap<u32, String> = (0..100).rev().map(|number| (number, number.to_string())).collect();
    assert_eq!(print(&forward), print(&backward));
    let other: HashMap<u32, String> = (0..100).map(|number| (number, (number / 2).to_string())).collect();
    assert_ne!(print(forward), print(other));
}

#[test]
fn sizes_count_what_values_own() {
    assert_eq!(String::with_capacity(50).heap_bytes(), 50);
    let mut texts = Vec::with_capacity(4);
    texts.push("abc".to_owned());
    assert_eq!(texts.heap_bytes(), 4 * size_of::<String>() as u64 + 3);
    assert_eq!(Arc::new([0u64; 16]).heap_bytes(), 128);
    assert_eq!(Arc::<str>::from("abc").heap_bytes(), 3);
    assert_eq!((7u64, Some(Box::new(1u32)), Opaque::new(0u8, 1000)).heap_bytes(), 1004);
}

#[tokio::test]
async fn what_is_opaque_differs_from_everything() {
    assert!(fingerprint_of(&(1u8, Opaque::new(2u8, 0))).is_none());
    assert!(
        fingerprint_of(&HashSet::from([1u8]).iter().map(|_| Opaque::new(0u8, 0)).collect::<Vec<_>>())
            .is_none()
    );
    let log = Log::default();
    let mut graph = Graph::builder();
    let connection = graph.input("connection", Opaque::new(1u64, 0));
    let noted = log.clone();
    let opened = graph.node("opened", connection).run(move |connection: Arc<Opaque<u64>>| {
        noted.note("opened");
        async move { Ok::<_, Infallible>(Opaque::new(**connection % 2, 0)) }
    });
    let noted = log.clone();
    let read = graph.node("read", opened).run(move |opened: Arc<Opaque<u64>>| {
        noted.note("read");
        async move { Ok::<_, Infallible>(**opened) }
    });
    let behind = add_sum(&mut graph, &log, "behind", vec![read]);
    let graph = graph.build().unwrap();
    assert_eq!(*graph.get(behind).await.unwrap(), 1);
    log.take();
    assert_eq!(graph.set(connection, Opaque::new(3, 0)).unwrap(), Change::Changed);
    assert_eq!(*graph.get(behind).await.unwrap(), 1);
    assert_eq!(log.take(), ["opened", "read"]);
}
