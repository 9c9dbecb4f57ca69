//! The channels beside which the queue is measured, behind one face.

use std::future::Future;
use std::sync::Arc;

use tokio::sync::Mutex;
use tokio::sync::mpsc;

pub(crate) type Message = [u64; 8];

pub(crate) const SLOTS: usize = 1024;
pub(crate) const LEVELS: u64 = 8;

/// Who takes many at once looks at each, since a message that nobody reads need not reach its taker's core.
pub(crate) fn look_at(message: &Message) {
    std::hint::black_box(message[0]);
}

/// Something that passes messages. Both sides say how many have passed.
pub(crate) trait Channel: Clone + Send + Sync + 'static {
    fn send(&self, number: u64) -> impl Future<Output = u64> + Send;
    fn receive(&self) -> impl Future<Output = u64> + Send;
}

macro_rules! channel {
    ($name:ident, $sender:ty, $receiver:ty, $make:expr) => {
        #[derive(Clone)]
        pub(crate) struct $name {
            sender: $sender,
            receiver: $receiver,
        }

        impl $name {
            pub(crate) fn new() -> Self {
                let (sender, receiver) = $make;
                Self { sender, receiver }
            }
        }
    };
}

const OPEN: &str = "both ends are held here";

channel!(Flume, flume::Sender<Message>, flume::Receiver<Message>, flume::bounded(SLOTS));

impl Channel for Flume {
    async fn send(&self, number: u64) -> u64 {
        self.sender.send_async([number; 8]).await.expect(OPEN);
        1
    }

    async fn receive(&self) -> u64 {
        self.receiver.recv_async().await.expect(OPEN);
        1
    }
}

channel!(Kanal, kanal::AsyncSender<Message>, kanal::AsyncReceiver<Message>, kanal::bounded_async(SLOTS));

impl Channel for Kanal {
    async fn send(&self, number: u64) -> u64 {
        self.sender.send([number; 8]).await.expect(OPEN);
        1
    }

    async fn receive(&self) -> u64 {
        self.receiver.recv().await.expect(OPEN);
        1
    }
}

channel!(
    AsyncChannel,
    async_channel::Sender<Message>,
    async_channel::Receiver<Message>,
    async_channel::bounded(SLOTS)
);

impl Channel for AsyncChannel {
    async fn send(&self, number: u64) -> u64 {
        self.sender.send([number; 8]).await.expect(OPEN);
        1
    }

    async fn receive(&self) -> u64 {
        self.receiver.recv().await.expect(OPEN);
        1
    }
}

type Array = crossfire::mpmc::Array<Message>;

channel!(
    Crossfire,
    crossfire::MAsyncTx<Array>,
    crossfire::MAsyncRx<Array>,
    crossfire::mpmc::bounded_async::<Message>(SLOTS)
);

impl Channel for Crossfire {
    async fn send(&self, number: u64) -> u64 {
        self.sender.send([number; 8]).await.expect(OPEN);
        1
    }

    async fn receive(&self) -> u64 {
        self.receiver.recv().await.expect(OPEN);
        1
    }
}

channel!(
    Priority,
    async_priority_channel::Sender<Message, u64>,
    async_priority_channel::Receiver<Message, u64>,
    async_priority_channel::bounded(SLOTS as u64)
);

impl Channel for Priority {
    async fn send(&self, number: u64) -> u64 {
        self.sender.send([number; 8], number % LEVELS).await.expect(OPEN);
        1
    }

    async fn receive(&self) -> u64 {
        self.receiver.recv().await.expect(OPEN);
        1
    }
}

/// Takers of tokio's channel take turns, since it has one receiver.
#[derive(Clone)]
pub(crate) struct Tokio {
    sender: mpsc::Sender<Message>,
    receiver: Arc<Mutex<mpsc::Receiver<Message>>>,
}

impl Tokio {
    pub(crate) fn new() -> Self {
        let (sender, receiver) = mpsc::channel(SLOTS);
        Self { sender, receiver: Arc::new(Mutex::new(receiver)) }
    }
}

impl Channel for Tokio {
    async fn send(&self, number: u64) -> u64 {
        self.sender.send([number; 8]).await.expect(OPEN);
        1
    }

    async fn receive(&self) -> u64 {
        self.receiver.lock().await.recv().await.expect(OPEN);
        1
    }
}

/// The same, with up to so many messages at a time.
#[derive(Clone)]
pub(crate) struct TokioMany {
    one: Tokio,
    limit: usize,
}

impl TokioMany {
    pub(crate) fn new(limit: usize) -> Self {
        Self { one: Tokio::new(), limit }
    }
}

impl Channel for TokioMany {
    fn send(&self, number: u64) -> impl Future<Output = u64> + Send {
        self.one.send(number)
    }

    async fn receive(&self) -> u64 {
        let mut messages = Vec::with_capacity(self.limit);
        let count = self.one.receiver.lock().await.recv_many(&mut messages, self.limit).await;
        messages.into_iter().for_each(|message| look_at(&message));
        count as u64
    }
}
