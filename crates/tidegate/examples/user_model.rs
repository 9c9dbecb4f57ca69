//! A model of one's own, served in batches: it judges how warm a text sounds by its words. Two tenants ask at once, one
//! sends a text that the model cannot read, and the batches hold texts of similar length.

use std::sync::Arc;
use std::time::Duration;

use tidegate::batching::{BatchModel, Dynamic, DynamicSettings, Terms};
use tidegate::protocol::TenantId;

/// Words and how warm they are.
const WORDS: [(&str, f32); 4] = [("sun", 1.0), ("fire", 2.0), ("ice", -2.0), ("rain", -1.0)];

struct Warmth {
    batches: usize,
}

/// A text without a single word.
#[derive(Debug, thiserror::Error)]
#[error("there is nothing to read in {0:?}")]
struct Nothing(String);

impl BatchModel for Warmth {
    type Input = String;
    type Output = f32;
    type Error = Nothing;

    fn cost(text: &String) -> u64 {
        text.len() as u64
    }

    fn run(&mut self, batch: &[Arc<String>]) -> Result<Vec<Result<f32, Nothing>>, Nothing> {
        self.batches += 1;
        println!("batch {} of {} texts", self.batches, batch.len());
        Ok(batch.iter().map(|text| warmth(text)).collect())
    }
}

fn warmth(text: &str) -> Result<f32, Nothing> {
    let known =
        |word: &str| WORDS.iter().find(|(known, _)| *known == word).map_or(0.0, |(_, warmth)| *warmth);
    let words: Vec<f32> = text.split_whitespace().map(known).collect();
    if words.is_empty() {
        return Err(Nothing(text.to_owned()));
    }
    Ok(words.iter().sum::<f32>() / words.len() as f32)
}

fn of(tenant: &str) -> Terms {
    let deadline = Some(Duration::from_secs(60));
    Terms { tenant: TenantId(tenant.to_owned()), deadline, ..Terms::default() }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let settings =
        DynamicSettings { batch_items: 8, batch_cost: 200, buckets: vec![16, 64], ..Default::default() };
    let warmth = Dynamic::start(Warmth { batches: 0 }, &settings)?;

    // One tenant sends many texts as one request, the other a single one; they are served together.
    let many: Vec<String> = (0..20).map(|day| format!("day {day} sun rain sun")).collect();
    let (many, one) = tokio::join!(
        warmth.submit_all(many, of("almanac")),
        warmth.submit("fire and ice".to_owned(), of("poet")),
    );
    let many = many?.into_iter().collect::<Result<Vec<f32>, _>>()?;
    assert_eq!(many, [0.2; 20]);
    assert_eq!(one??, 0.0);

    // An error is of its input alone.
    let mixed = warmth.submit_all(vec!["sun".to_owned(), " ".to_owned()], of("poet")).await?;
    assert_eq!(mixed[0], Ok(1.0));
    if let Err(error) = &mixed[1] {
        println!("the empty text: {error}");
    }

    let status = warmth.status();
    println!("{} requests in {} batches", status.counters.accepted, status.counters.steps);
    warmth.drain().await;
    Ok(())
}
