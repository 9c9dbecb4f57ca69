//! Pictures, states, explanations, events.

use std::time::Duration;

use super::*;

fn draw(log: &Log) -> (GraphBuilder, Input<u64>, [Node<u64>; 3]) {
    let mut graph = Graph::builder();
    let (a, b) = (graph.input("a", 1u64), graph.unset_input::<u64>("b"));
    let sum = add_sum(&mut graph, log, "the \"sum\"", vec![a.node()]);
    let fails = graph.node("<fails>", (a, b)).run(async |_| Err::<u64, _>("no"));
    let last = add_sum(&mut graph, log, "last", vec![sum, fails, sum]);
    (graph, a, [sum, fails, last])
}

#[tokio::test]
async fn shapes_are_drawn() {
    let graph = draw(&Log::default()).0.build().unwrap();
    let dot = r#"digraph {
  rankdir=LR;
  node [shape=box, style="rounded,filled", fillcolor=white];
  "a" [shape=ellipse];
  "b" [shape=ellipse];
  "the \"sum\"";
  "<fails>";
  "last";
  "a" -> "the \"sum\"";
  "a" -> "<fails>";
  "b" -> "<fails>";
  "the \"sum\"" -> "last";
  "<fails>" -> "last";
  "the \"sum\"" -> "last";
}
"#;
    assert_eq!(graph.to_dot(Drawing::Shape), dot);
    let mermaid = r##"flowchart LR
  n0(["a"])
  n1(["b"])
  n2["the #quot;sum#quot;"]
  n3["#lt;fails#gt;"]
  n4["last"]
  n0 --> n2
  n0 --> n3
  n1 --> n3
  n2 --> n4
  n3 --> n4
  n2 --> n4
"##;
    assert_eq!(graph.to_mermaid(Drawing::Shape), mermaid);
}

#[tokio::test]
async fn states_are_told_and_drawn() {
    let (graph, a, [sum, _, last]) = draw(&Log::default());
    let graph = graph.build().unwrap();
    let states =
        || graph.states().into_iter().map(|(_, state)| state.to_string()).collect::<Vec<_>>().join(" ");
    assert_eq!(states(), "set unset new new new");
    graph.get(last).await.unwrap_err();
    graph.get(sum).await.unwrap();
    assert_eq!(states(), "set unset cached failed failed");
    graph.evict(sum).unwrap();
    assert_eq!(states(), "set unset evicted failed failed");
    graph.set(a, 2).unwrap();
    assert_eq!(states(), "set unset dirty failed failed");
    let dot = graph.to_dot(Drawing::States);
    assert!(dot.contains(r##""a" [shape=ellipse, label="a\nset", fillcolor="#dbe9f6"];"##), "{dot}");
    assert!(dot.contains(r##""the \"sum\"" [label="the \"sum\"\ndirty", fillcolor="#fdebc8"];"##), "{dot}");
    let mermaid = graph.to_mermaid(Drawing::States);
    assert!(mermaid.contains("  n2[\"the #quot;sum#quot;<br/>dirty\"]:::dirty\n"), "{mermaid}");
    assert!(mermaid.contains("  classDef failed fill:#f6cfcb,stroke:#555555,color:#111111\n"), "{mermaid}");
}

#[tokio::test]
async fn running_and_waiting_are_states_too() {
    let mut graph = Graph::builder();
    let endless = graph.node("endless", ()).run(async |()| {
        std::future::pending::<()>().await;
        Ok::<_, Infallible>(1u64)
    });
    let behind = add_sum(&mut graph, &Log::default(), "behind", vec![endless]);
    let graph = graph.build().unwrap();
    let mut asked = Box::pin(graph.get(behind));
    assert!(futures::poll!(&mut asked).is_pending());
    assert_eq!(graph.states(), [("endless", NodeState::Waiting), ("behind", NodeState::Waiting)]);
    tokio::task::yield_now().await;
    assert_eq!(graph.states(), [("endless", NodeState::Running), ("behind", NodeState::Waiting)]);
}

#[tokio::test]
async fn explanations_say_what_would_run_and_why() {
    let log = Log::default();
    let mut graph = Graph::builder();
    let (a, b) = (graph.input("a", 1u64), graph.input("b", 2u64));
    let left = add_sum(&mut graph, &log, "left", vec![a.node()]);
    let right = add_sum(&mut graph, &log, "right", vec![b.node()]);
    let both = add_sum(&mut graph, &log, "both", vec![left, right]);
    let graph = graph.build().unwrap();
    let check = |expected: &str| assert_eq!(graph.explain(both).unwrap().to_string(), expected);
    check(
        "a: given\nleft: runs, because it has not run for these inputs\nb: given\n\
         right: runs, because it has not run for these inputs\nboth: may run, because 'left' comes before it\n",
    );
    graph.get(both).await.unwrap();
    check("both: known\n");
    graph.set(a, 5).unwrap();
    graph.evict(right).unwrap();
    check(
        "a: given\nleft: runs, because 'a' was changed\nb: given\n\
         right: may run, because its value was evicted and is needed\nboth: may run, because 'left' comes before it\n",
    );
    graph.get(both).await.unwrap();
    graph.evict(both).unwrap();
    check("left: known\nright: known\nboth: runs, because its value was evicted and is needed\n");
    graph.invalidate(both).unwrap();
    check("left: known\nright: known\nboth: runs, because 'both' was changed\n");
}

#[tokio::test(start_paused = true)]
async fn an_observer_is_told_what_happens() {
    let told = Log::default();
    let mut graph = Graph::builder();
    let observer = told.clone();
    graph.observer(move |event| observer.note(&format!("{} {:?}", event.node, event.what)));
    let a = graph.input("a", 1u64);
    let retry = crate::retry::Retry::exponential(Duration::ZERO, Duration::ZERO).attempts(2);
    let fails = graph.node("fails", a).retry(retry).run(async |_| Err::<u64, _>("no"));
    let works = graph.node("works", a).run(|a: Arc<u64>| async move {
        tokio::time::sleep(Duration::from_secs(1)).await;
        Ok::<_, Infallible>(*a)
    });
    let graph = graph.build().unwrap();
    graph.get(works).await.unwrap();
    assert_eq!(told.take(), ["works Finished { took: 1s, bytes: 8 }", "works Started { attempt: 1 }"]);
    graph.get(fails).await.unwrap_err();
    let failed = "Error { error: \"no\", attempts: 2 }";
    assert_eq!(
        told.take(),
        [
            &*format!("fails Failed {{ took: 0ns, cause: {failed} }}"),
            "fails Retried { attempt: 1, after: 0ns, cause: \"failed: no\" }",
            "fails Started { attempt: 1 }",
            "fails Started { attempt: 2 }",
        ]
    );
    graph.set(a, 2).unwrap();
    let mut dropped = Box::pin(graph.get(works));
    assert!(futures::poll!(&mut dropped).is_pending());
    tokio::task::yield_now().await;
    drop(dropped);
    graph.assert_rest().await;
    assert_eq!(told.take(), ["works Cancelled", "works Started { attempt: 1 }"]);
}
