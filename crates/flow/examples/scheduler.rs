//! Sharing out a machine: work says what it needs, and runs when all of it is free.

use std::sync::Arc;
use std::time::Duration;

use flow::queue::{Capacity, Lease, Queue, Ticket};
use flow::scheduler::{
    Device, Inventory, Needs, Reading, Reservation, Rules, Scaling, Scheduler, Staffing, Terms, Watermarks,
    WorkerPool,
};
use futures::future::join_all;
use tokio::time::{Instant, sleep};

const MS: Duration = Duration::from_millis(1);

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // What there is. `Inventory::detected()` asks the system for memory and processors; devices are always given.
    let gpu = |name: &str| Device::new("gpu", name).memory(80 << 30);
    let inventory = Inventory::new().memory(8_000_000_000).cpu(4000).device(gpu("gpu0")).device(gpu("gpu1"));
    let scheduler = Scheduler::new(&inventory, Rules::default())?;

    // What work needs, in words or in code. Nothing is guessed: what is misspelt or can never fit is refused at once.
    let training = scheduler.needs("memory: 2GB, gpu: true, gpu_memory: 24GiB")?;
    let report = Needs::new().memory(500_000_000).cpu(500);
    for wrong in ["memroy: 2GB", "memory: 2gb", "memory: 9GB", "gpu: 3"] {
        if let Err(error) = scheduler.needs(wrong) {
            println!("{wrong:<12} {error}");
        }
    }

    // Work of two owners and two urgencies. It is spread over the devices, and never takes more than there is.
    let train = |name: &'static str| {
        move |reservation: Arc<Reservation>| async move {
            sleep(20 * MS).await;
            format!("{name} on {}", reservation.devices().join(" and "))
        }
    };
    let tasks = ["first", "second", "third", "fourth"].map(|name| {
        let terms = Terms::of("research").level(1).deadline(Instant::now() + Duration::from_secs(10));
        scheduler.submit(&training, terms, train(name))
    });
    let report =
        scheduler.submit(&report, Terms::of("accounting"), |_| async { "a report beside it".to_owned() })?;
    let status = scheduler.status();
    println!("{} run and {} wait", status.running, status.waiting);
    for task in join_all(tasks.into_iter().collect::<Result<Vec<_>, _>>()?).await {
        println!("trained {}", task?);
    }
    println!("wrote {}", report.await?);

    // Once memory is really short, less is started, and then nothing, whatever the ledger says. `watch_system` asks the
    // system how short it is; this one pretends that memory is nearly used up for a moment.
    let mut readings = [0.95, 0.95, 0.5].into_iter();
    let probe = move || Reading { used: readings.next().unwrap_or(0.5), stalled: 0.0 };
    scheduler.watch(Watermarks { every: 10 * MS, ..Watermarks::default() }, probe);
    sleep(5 * MS).await;
    let pressure = scheduler.status().pressure;
    let begun = Instant::now();
    drop(scheduler.acquire(&Needs::new(), Terms::default()).await?);
    println!("{pressure:?} pressure let work wait: {}", begun.elapsed() > 2 * MS);

    // Workers on a queue: as many as it needs, each item on a reservation of its own.
    let queue: Queue<u32> = Queue::new(Capacity::items(1000));
    let staffing = Staffing::workers(1..=8).scaling(Scaling::to_keep_below(10 * MS));
    let on = scheduler.clone();
    let pool = WorkerPool::start(queue.clone(), staffing, move |lease: Lease<u32>| {
        let scheduler = on.clone();
        async move {
            let needs = Needs::new().memory(1_000_000_000);
            let Ok(_held) = scheduler.acquire(&needs, Terms::default()).await else { return };
            sleep(2 * MS).await;
            if let Err(error) = lease.ack().await {
                eprintln!("a page will come again: {error}");
            }
        }
    });
    for page in 0..200 {
        queue.put(page, Ticket::of("readers")).await?;
    }
    queue.close();
    pool.join().await;
    println!("{} pages done; {} reservations left", pool.status().done, scheduler.status().running);
    Ok(())
}
