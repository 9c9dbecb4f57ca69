//! A graph that computes what is asked for, and after a change only what has changed.
//!
//! Three documents are split into words; an index is made of the words, and a report of the index and a query.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use flow::graph::{Drawing, Graph, GraphError, Happening, Input, Node};
use flow::{Class, Retry};
use futures::{TryStreamExt, stream};

type Index = BTreeMap<String, BTreeSet<usize>>;

struct Library {
    graph: Graph,
    documents: Vec<Input<String>>,
    query: Input<String>,
    /// The numbers of the documents in which the query is found.
    found: Node<BTreeSet<usize>>,
}

/// Inputs are what is given; nodes are functions of inputs and of other nodes.
fn library(texts: &[&str]) -> Result<Library, GraphError> {
    let mut graph = Graph::builder();
    graph.concurrency(4).observer(|event| {
        if let Happening::Finished { bytes, .. } = &event.what {
            println!("  ran {} ({bytes} bytes)", event.node);
        }
    });
    let (mut documents, mut words) = (Vec::new(), Vec::new());
    for (number, text) in texts.iter().enumerate() {
        let document = graph.input(&format!("document {number}"), (*text).to_owned());
        let node = graph
            .node(&format!("words {number}"), document)
            .timeout(Duration::from_secs(5))
            .retry_by_class(Retry::exponential(Duration::from_millis(10), Duration::from_secs(1)), class);
        words.push(node.run(|text: Arc<String>| async move { split(&text) }));
        documents.push(document);
    }
    let index = graph.node("index", words).run_blocking(|documents: Vec<Arc<BTreeSet<String>>>| {
        let mut index = Index::new();
        for (number, words) in documents.iter().enumerate() {
            for word in words.iter() {
                index.entry(word.clone()).or_default().insert(number);
            }
        }
        Ok::<_, EmptyDocument>(index)
    });
    let query = graph.input("query", "tide".to_owned());
    let found =
        graph.node("found", (index, query)).run(|(index, query): (Arc<Index>, Arc<String>)| async move {
            Ok::<_, EmptyDocument>(index.get(&*query).cloned().unwrap_or_default())
        });
    Ok(Library { graph: graph.build()?, documents, query, found })
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), GraphError> {
    let Library { graph, documents, query, found } =
        library(&["the tide turns", "the gate opens", "the tide ebbs"])?;

    println!("first everything that the answer needs runs:");
    println!("'tide' is in {:?}", graph.get(found).await?);

    println!("another order of words makes the same set of words, so the index is spared:");
    graph.set(documents[0], "turns the tide".to_owned())?;
    println!("'tide' is in {:?}", graph.get(found).await?);

    println!("a new word in one document:");
    graph.set(documents[1], "the gate stems the tide".to_owned())?;
    print!("{}", graph.explain(found)?);
    println!("'tide' is in {:?}", graph.get(found).await?);

    println!("many queries stream through the same graph, four at once:");
    let queries = stream::iter(["gate", "ebbs", "turns", "moon"].map(str::to_owned));
    let at_once = NonZeroUsize::MIN.saturating_add(3);
    let hits = graph.map_stream(queries, query, found, at_once).map_ok(|found| found.len());
    println!("hits: {:?}", hits.try_collect::<Vec<_>>().await?);

    println!("an empty document fails, and the error says where:");
    graph.set(documents[2], String::new())?;
    if let Err(error) = graph.get(found).await {
        println!("{error}");
    }

    println!("{}", graph.to_mermaid(Drawing::States));
    let stats = graph.stats();
    println!("{} runs, {} values reused, {} bytes kept", stats.runs, stats.memo.hits, stats.memo.bytes);
    Ok(())
}

#[derive(Debug, thiserror::Error)]
#[error("the document is empty")]
struct EmptyDocument;

/// An empty document is empty however often it is split.
fn class(error: &(dyn Error + Send + Sync + 'static)) -> Class {
    if error.is::<EmptyDocument>() { Class::Permanent } else { Class::Transient }
}

fn split(text: &str) -> Result<BTreeSet<String>, EmptyDocument> {
    if text.is_empty() {
        return Err(EmptyDocument);
    }
    Ok(text.split(' ').map(str::to_owned).collect())
}
