//! What durability costs: items per second through put, take and acknowledgement, each on the disk before its caller is
//! told, beside the bare writes and syncs of the same bytes and beside the servers that are installed.
//!
//! `redis-server` and `nats-server` are looked for in the path; one that is missing is left out, and so is a demand that
//! an old one cannot meet. Numbers among the arguments say at how many producers to measure; the folder for the files is
//! the first argument that is neither a number nor a flag, or the target folder.

mod measure;

mod durable {
    pub(crate) mod bare;
    pub(crate) mod nats;
    pub(crate) mod ours;
    pub(crate) mod redis;
    pub(crate) mod server;
}

use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};

use durable::ours::Lasting;
use durable::{bare, nats, redis};
use measure::{Better, Contender, bar, compare};

/// The bytes of an item.
const ITEM: usize = 1024;

/// Producers, and how many items pass in a round.
const LOADS: [(usize, usize); 4] = [(1, 200), (16, 2_000), (64, 8_000), (256, 20_000)];

/// JetStream syncs for each item, so that a round of it would take minutes: it gets this part of the items.
const PART_FOR_NATS: usize = 8;

/// Consumers take and acknowledge so many items at a time.
const BATCH: usize = 16;

/// How many consumers there are beside so many producers.
fn consumers(producers: usize) -> usize {
    producers.div_ceil(4)
}

/// At so many producers the bars stand.
const BAR_AT: usize = 64;

fn main() {
    let asked = || std::env::args().skip(1).filter(|argument| !argument.starts_with('-'));
    let wanted: Vec<usize> = asked().filter_map(|argument| argument.parse().ok()).collect();
    let place = asked().find(|argument| argument.parse::<usize>().is_err());
    let place = place.map_or_else(|| Path::new(env!("CARGO_TARGET_TMPDIR")).to_owned(), PathBuf::from);
    let folder = place.join(format!("durable-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("the folder for the files can be made");
    let redis = redis::start(&folder.join("redis"));
    let nats = nats::start(&folder.join("nats"));
    for (producers, items) in LOADS {
        if !wanted.is_empty() && !wanted.contains(&producers) {
            continue;
        }
        table(&folder, redis.as_ref(), nats.as_ref(), producers, items);
    }
    drop((redis, nats));
    let _they_are_temporary = std::fs::remove_dir_all(&folder);
}

fn table(
    folder: &Path,
    redis: Option<&redis::Redis>,
    nats: Option<&nats::Nats>,
    producers: usize,
    items: usize,
) {
    let ours_name = format!("durable queue, {producers} producers");
    let store_name = format!("its store alone, groups of {producers}");
    let bare_name = "the same bytes, bare write and fdatasync";
    let waited_name = format!("its store, {producers} producers who wait");
    let bare_waited_name = "the same bytes and producers, bare";
    let mut queue = Lasting::open(&folder.join("queue"));
    let store = RefCell::new(Lasting::open(&folder.join("store")));
    let bare_file = folder.join("bare");
    let (queue_groups, store_groups, waited_bytes) = (Cell::new(1), RefCell::new(Vec::new()), Cell::new(0));
    let mut contenders = vec![
        Contender::new(&ours_name, || {
            let (rate, groups) = queue.queue(producers, items);
            queue_groups.set(groups);
            rate
        }),
        Contender::new(&store_name, || {
            let (rate, groups) = store.borrow_mut().alone(producers, items);
            store_groups.replace(groups);
            rate
        }),
        Contender::new(bare_name, || bare::round(&bare_file, &store_groups.borrow(), items)),
        Contender::new("the same over a file that was written before", || {
            bare::second_round(&bare_file, &store_groups.borrow(), items)
        }),
        Contender::new(&waited_name, || {
            let (rate, groups) = store.borrow_mut().with_producers(producers, items);
            waited_bytes.set(groups.iter().sum::<usize>());
            rate
        }),
        Contender::new(bare_waited_name, || {
            bare::with_producers(&bare_file, waited_bytes.get() / items, producers, items)
        }),
    ];
    contenders.extend(redis.map(|redis| Contender::new(redis.name(), || redis.round(producers, items))));
    contenders.extend(
        nats.map(|nats| Contender::new(nats.name(), || nats.round(producers, items / PART_FOR_NATS))),
    );
    let title = format!("put + take + ack of {items} items of {ITEM} bytes, {producers} producers");
    let outcomes = compare(&title, "items/s", contenders);
    println!("  {:.1} items in a group of the queue at the mean", items as f64 / queue_groups.get() as f64);
    bar(&outcomes, &store_name, bare_name, 0.8, Better::Higher);
    bar(&outcomes, &waited_name, bare_waited_name, 0.8, Better::Higher);
    if producers == BAR_AT {
        redis.iter().for_each(|redis| bar(&outcomes, &ours_name, redis.name(), 5.0, Better::Higher));
        nats.iter().for_each(|nats| bar(&outcomes, &ours_name, nats.name(), 5.0, Better::Higher));
    }
}
