//! What is refused when a graph is built, and how it is said.

use super::*;

fn check(expected: &str, draw: impl FnOnce(&mut GraphBuilder)) {
    let mut graph = Graph::builder();
    draw(&mut graph);
    assert_eq!(graph.build().unwrap_err().to_string(), expected);
}

fn copy<D: Deps>(graph: &mut GraphBuilder, name: &str, deps: D) -> Node<u64> {
    graph.node(name, deps).run(async |_| Ok::<_, Infallible>(0u64))
}

#[test]
fn what_is_wrong_is_named() {
    check(
        "two nodes are called 'a'; a name is what a node's results are remembered by, so give each its own",
        |graph| {
            graph.input("a", 1u64);
            copy(graph, "a", ());
        },
    );
    check("node 'b' asks for 'c', and there is no such node; add it, or name one that is there", |graph| {
        let c = graph.named::<u64>("c");
        copy(graph, "b", c);
    });
    check(
        "'b' expects 'a' to be u64, and it is alloc::string::String; change the one or the other",
        |graph| {
            graph.input("a", String::new());
            let a = graph.named::<u64>("a");
            copy(graph, "b", a);
        },
    );
    check(
        "nodes wait for one another in a circle, b → d → c → b; take out one of these edges",
        |graph| {
            let a = graph.input("a", 1u64);
            let (b, c, d) = (graph.named::<u64>("b"), graph.named::<u64>("c"), graph.named::<u64>("d"));
            copy(graph, "before", a);
            copy(graph, "b", (c, a));
            copy(graph, "c", d.clone());
            copy(graph, "d", b);
            copy(graph, "behind", d);
        },
    );
    check("nodes wait for one another in a circle, a → a; take out one of these edges", |graph| {
        let a = graph.named::<u64>("a");
        copy(graph, "a", a);
    });
    check(
        "the handle that 'b' was given belongs to another graph; use the handles of this graph's builder",
        |graph| {
            let foreign = Graph::builder().input("a", 1u64);
            copy(graph, "b", foreign);
        },
    );
}

#[tokio::test]
async fn names_find_nodes_and_foreign_handles_are_refused() {
    let mut graph = Graph::builder();
    let forward = graph.named::<u64>("number");
    let log = Log::default();
    let double = graph.node("double", forward).run(async |number: Arc<u64>| Ok::<_, Infallible>(2 * *number));
    graph.input("number", 4u64);
    let graph = graph.build().unwrap();
    assert_eq!(*graph.get(graph.node::<u64>("double").unwrap()).await.unwrap(), 8);
    assert!(matches!(graph.node::<u64>("triple"), Err(GraphError::Unknown { .. })));
    assert!(matches!(graph.node::<u32>("double"), Err(GraphError::Mismatch { .. })));

    let mut other = Graph::builder();
    let input = other.input("input", 1u64);
    let sum = add_sum(&mut other, &log, "sum", vec![input.node()]);
    let other = other.build().unwrap();
    assert!(matches!(graph.get(sum).await, Err(GraphError::Foreign { .. })));
    assert!(matches!(graph.get_many([sum]).await, Err(GraphError::Foreign { .. })));
    assert!(matches!(graph.set(input, 3), Err(GraphError::Foreign { .. })));
    assert!(matches!(graph.evict(sum), Err(GraphError::Foreign { .. })));
    assert!(matches!(graph.adopt(&other.snapshot()), Err(GraphError::Foreign { .. })));
    assert!(matches!(other.get(double).await, Err(GraphError::Foreign { .. })));
}

#[tokio::test]
async fn a_sketch_is_drawn_by_name_checked_and_remembers_across_changes() {
    let log = Log::default();
    let step = |name: &'static str, plus: u64| {
        let log = log.clone();
        SketchNode::new(name, move |values: Vec<Arc<u64>>| {
            log.note(name);
            async move { Ok::<_, Infallible>(values.iter().map(|value| **value).sum::<u64>() + plus) }
        })
    };
    let mut sketch = Sketch::new(Memo::default(), 4);
    sketch.add_node(step("load", 1)).add_node(step("clean", 10)).add_node(step("score", 100));
    sketch.add_edge("load", "clean").add_edge("clean", "score");
    let outcome = sketch.execute(0).unwrap().await.unwrap();
    assert_eq!(outcome, [("score".into(), 111.into())]);
    assert_eq!(log.take(), ["clean", "load", "score"]);

    let count =
        SketchNode::blocking("count", |values: Vec<Arc<u64>>| Ok::<_, Infallible>(values.len() as u64));
    sketch.add_node(count).add_edge("load", "count").add_edge("clean", "count");
    let outcome = sketch.execute(0).unwrap().await.unwrap();
    assert_eq!(outcome, [("score".into(), 111.into()), ("count".into(), 2.into())]);
    assert_eq!(log.take(), [""; 0]);

    sketch.add_edge("score", "load");
    let refused = sketch.execute(0).err().unwrap().to_string();
    assert_eq!(
        refused,
        "nodes wait for one another in a circle, load → clean → score → load; take out one of these edges"
    );
    sketch.remove_edge("score", "load").add_edge("lode", "score");
    assert!(sketch.execute(0).err().unwrap().to_string().contains("'score' asks for 'lode'"));
    sketch.remove_edge("lode", "score").add_edge("load", "scare");
    assert_eq!(sketch.execute(0).err().unwrap().to_string(), "there is no node 'scare' in this graph");
    sketch.remove_edge("load", "scare").remove_node("count").remove_node("clean");
    let outcome = sketch.execute(5).unwrap().await.unwrap();
    assert_eq!(outcome, [("load".into(), 6.into()), ("score".into(), 105.into())]);
}
