//! A queue as a stream and as a sink, as code that knows `futures` uses them.

use futures::{SinkExt, StreamExt, stream};

use super::*;

#[tokio::test(start_paused = true)]
async fn a_stream_of_leases_ends_with_the_queue() {
    let queue = Queue::builder(Capacity::items(9)).policy(fifo()).build();
    for item in 0..5 {
        queue.put(item, Ticket::default()).await.unwrap();
    }
    queue.close();
    let done: Vec<u32> = queue
        .leases()
        .then(|lease| async move {
            let item = *lease;
            lease.ack().await.unwrap();
            item
        })
        .collect()
        .await;
    assert_eq!(done, [0, 1, 2, 3, 4]);
    assert_at_rest(&queue);
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_holds_the_source_of_its_sink_back() {
    let queue = Queue::builder(Capacity::items(2)).policy(fifo()).build();
    let source = tokio::spawn({
        let items = stream::iter((0..9).map(|item| Ok((item, Ticket::default()))));
        items.forward(queue.sink())
    });
    let_others_run().await;
    assert_eq!(queue.stats().totals.accepted, 2, "the third waits for room");
    let mut leases = Box::pin(queue.leases());
    for expected in 0..9 {
        let lease = leases.next().await.unwrap();
        assert_eq!(*lease, expected);
        lease.ack().await.unwrap();
    }
    source.await.unwrap().unwrap();
    assert!(!queue.is_closed(), "others may use it");
    assert_at_rest(&queue);
}

#[tokio::test(start_paused = true)]
async fn a_sink_goes_on_after_an_item_that_was_rejected() {
    let queue = Queue::builder(Capacity::items(1)).overflow(Overflow::Reject).build();
    let mut sink = queue.sink();
    sink.send((1, Ticket::default())).await.unwrap();
    let rejected = sink.send((2, Ticket::default())).await.unwrap_err();
    assert_eq!((rejected.item, rejected.reason), (2, Rejection::Items));
    queue.take().await.unwrap().ack().await.unwrap();
    sink.send((3, Ticket::default())).await.unwrap();
    assert_eq!(queue.pop().await.unwrap().item, 3);
    assert_at_rest(&queue);
}
