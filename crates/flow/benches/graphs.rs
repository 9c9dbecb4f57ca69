//! What a graph costs: per node beside plain calls, per answer that is there, per change.

mod measure;

use std::convert::Infallible;
use std::hint::black_box;
use std::sync::Arc;

use flow::graph::{Graph, GraphBuilder, Input, Memo, Node};
use measure::{Better, Contender, Outcome, bar, compare, time};
use tokio::runtime::{Builder, Runtime};

/// Nodes of each graph.
const NODES: u64 = 10_000;

/// Chains that a broad graph has.
const CHAINS: u64 = 100;

fn main() {
    let runtime = Builder::new_multi_thread().enable_time().build().expect("a runtime starts");
    cold(&runtime);
    warm(&runtime);
    change(&runtime);
}

/// What each node does: next to nothing, so that what is measured is what is around it.
async fn step(value: u64) -> Result<u64, Infallible> {
    Ok(black_box(value ^ 0x9e37).wrapping_add(1))
}

/// Runs on the threads of the runtime, where those who ask usually are.
fn on<T: Send + 'static>(runtime: &Runtime, work: impl Future<Output = T> + Send + 'static) -> T {
    runtime.block_on(runtime.spawn(work)).expect("nothing panics")
}

fn add_chain(graph: &mut GraphBuilder, name: &str, input: Input<u64>, length: u64) -> Node<u64> {
    (0..length).fold(input.node(), |before, place| {
        graph
            .node(&format!("{name} {place}"), before)
            .run(|value: Arc<u64>| async move { step(*value).await })
    })
}

/// A chain behind each input, and one node behind all chains.
struct Broad {
    graph: Graph,
    inputs: Vec<Input<u64>>,
    sum: Node<u64>,
    count: u64,
}

impl Broad {
    fn new() -> Self {
        let mut graph = Graph::builder();
        graph.memo(Memo::new(1 << 30));
        let inputs: Vec<_> = (0..CHAINS).map(|chain| graph.input(&format!("input {chain}"), chain)).collect();
        let chain = |(number, input): (usize, &Input<u64>)| {
            add_chain(&mut graph, &format!("chain {number}"), *input, NODES / CHAINS)
        };
        let ends: Vec<_> = inputs.iter().enumerate().map(chain).collect();
        let sum = graph.node("sum", ends).run(async |ends: Vec<Arc<u64>>| {
            Ok::<_, Infallible>(ends.iter().fold(0u64, |sum, end| sum.wrapping_add(**end)))
        });
        Self { graph: graph.build().expect("the graph is sound"), inputs, sum, count: 1 << 20 }
    }

    /// Gives the first `inputs` inputs values that they have not had, and asks for the sum.
    fn renew(&mut self, runtime: &Runtime, inputs: usize) {
        for input in &self.inputs[..inputs] {
            self.count += 1;
            self.graph.set(*input, self.count).expect("the input is the graph's");
        }
        on(runtime, self.graph.get(self.sum)).expect("nothing fails");
    }
}

/// Nanoseconds per node when nothing is remembered.
fn cold(runtime: &Runtime) {
    let per_node = |work: &mut dyn FnMut()| time(work).as_nanos() as f64 / NODES as f64;
    let mut graph = Graph::builder();
    graph.memo(Memo::new(1 << 30));
    let input = graph.input("input", 0u64);
    let last = add_chain(&mut graph, "link", input, NODES);
    let graph = graph.build().expect("the graph is sound");
    let mut count = 0;
    let mut broad = Broad::new();
    let outcomes = compare(
        "a run per node",
        "ns",
        vec![
            Contender::new("plain async calls, one after another", || {
                per_node(&mut || {
                    on(runtime, async {
                        let mut value = 0;
                        for _ in 0..NODES {
                            value = Box::pin(step(value)).await.unwrap_or(0);
                        }
                        black_box(value);
                    });
                })
            }),
            Contender::new("a tokio task per call, one after another", || {
                per_node(&mut || {
                    on(runtime, async {
                        let mut value = 0;
                        for _ in 0..NODES {
                            value = tokio::spawn(step(value)).await.map_or(0, |made| made.unwrap_or(0));
                        }
                        black_box(value);
                    });
                })
            }),
            Contender::new("a graph that is one chain", || {
                count += 1;
                graph.set(input, count).expect("the input is the graph's");
                per_node(&mut || {
                    black_box(on(runtime, graph.get(last)).expect("nothing fails"));
                })
            }),
            Contender::new("a graph of a hundred chains", || {
                per_node(&mut || broad.renew(runtime, CHAINS as usize))
            }),
        ],
    );
    bar(
        &outcomes,
        "a graph that is one chain",
        "a tokio task per call, one after another",
        0.2,
        Better::Lower,
    );
}

/// Nanoseconds per answer that is there.
fn warm(runtime: &Runtime) {
    const ASKED: u64 = 20_000;
    let mut broad = Broad::new();
    broad.renew(runtime, 1);
    let Broad { graph, sum, .. } = &broad;
    let per_get = |times: u64, work: &mut dyn FnMut()| time(work).as_nanos() as f64 / times as f64;
    compare(
        "an answer that is there",
        "ns",
        vec![
            Contender::new("get", || {
                per_get(ASKED, &mut || {
                    let (graph, sum) = (graph.clone(), *sum);
                    on(runtime, async move {
                        for _ in 0..ASKED {
                            black_box(graph.get(sum).await.expect("nothing fails"));
                        }
                    });
                })
            }),
            Contender::new("set to what it is", || {
                let value = broad.count;
                per_get(ASKED, &mut || {
                    for _ in 0..ASKED {
                        black_box(graph.set(broad.inputs[0], value).expect("the input is the graph's"));
                    }
                })
            }),
        ],
    );
}

/// Microseconds from a change to the answer in a graph of ten thousand nodes.
fn change(runtime: &Runtime) {
    let micros = |work: &mut dyn FnMut()| time(work).as_nanos() as f64 / 1000.0;
    let (mut all, mut one) = (Broad::new(), Broad::new());
    all.renew(runtime, 1);
    one.renew(runtime, 1);
    let (spared, clock, parity) = spared(runtime);
    let mut count = 0;
    let outcomes = compare(
        "from a change to the answer, 10,000 nodes",
        "us",
        vec![
            Contender::new("all inputs change", || micros(&mut || all.renew(runtime, CHAINS as usize))),
            Contender::new("one of 100 inputs changes", || micros(&mut || one.renew(runtime, 1))),
            Contender::new("the first result comes out the same", || {
                count += 2;
                micros(&mut || {
                    spared.set(clock, count).expect("the input is the graph's");
                    black_box(on(runtime, spared.get(parity)).expect("nothing fails"));
                })
            }),
        ],
    );
    let of = |outcomes: &[Outcome], place: usize| outcomes[place].median();
    println!("  of all runs: {:.1} % after one input", 100.0 * of(&outcomes, 1) / of(&outcomes, 0));
    bar(&outcomes, "one of 100 inputs changes", "all inputs change", 50.0, Better::Lower);
    bar(&outcomes, "the first result comes out the same", "all inputs change", 2.0, Better::Lower);
}

/// A chain whose first node says whether its input is even.
fn spared(runtime: &Runtime) -> (Graph, Input<u64>, Node<u64>) {
    let mut graph = Graph::builder();
    let clock = graph.input("clock", 0u64);
    let parity = graph.node("parity", clock).run(async |clock: Arc<u64>| Ok::<_, Infallible>(*clock % 2));
    let last = (0..NODES).fold(parity, |before, place| {
        graph.node(&format!("link {place}"), before).run(|value: Arc<u64>| async move { step(*value).await })
    });
    let graph = graph.build().expect("the graph is sound");
    on(runtime, graph.get(last)).expect("nothing fails");
    (graph, clock, last)
}
