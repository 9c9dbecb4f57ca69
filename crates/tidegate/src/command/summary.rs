//! What was opened, in words.

use protocol::Task;
use tidegate::settings::ByteSize;
use tidegate::{Source, Summary};

/// One line: the model and what it runs on.
pub(super) fn greeting(summary: &Summary) -> String {
    let card = &summary.card;
    format!("{} ({}, {}, {})", card.id, parameters(card.parameters), card.dtype, summary.compute)
}

/// The rows of the banner: a word and what it says.
pub(super) fn rows(summary: &Summary) -> Vec<(&'static str, String)> {
    let card = &summary.card;
    let size = |bytes: u64| format!("{} ({bytes} bytes)", ByteSize(bytes).approximate());
    let place = match &summary.source {
        Source::Embedded => "embedded, for wiring and not for wisdom".to_owned(),
        place => place.to_string(),
    };
    let memory = &summary.memory;
    let silent = if card.chat || !card.can(Task::Generate) { "" } else { ", no chat template" };
    let tasks: Vec<String> = card.tasks.iter().map(Task::to_string).collect();
    let mut rows = vec![
        ("model", format!("{} ({place})", card.id)),
        ("family", format!("{}, {} parameters, {}", card.family, parameters(card.parameters), card.dtype)),
        ("does", tasks.join(", ")),
        ("context", format!("{} tokens{silent}", card.context)),
        ("compute", summary.compute.clone()),
        ("memory", size(memory.total())),
        ("  weights", size(memory.weights)),
        ("  KV", size(memory.kv) + ", taken as it is used"),
        ("  buffers", size(memory.kv_buffers) + ", for KV on its way to the disk"),
        ("  images", size(memory.images) + ", taken as they come"),
        ("  workspace", size(memory.workspace)),
        (
            "limits",
            format!(
                "{} running, {} waiting, {} tokens a step",
                summary.max_sequences, summary.max_queue, summary.max_batch_tokens
            ),
        ),
    ];
    // What there is not is not worth a row.
    let absent = [("  buffers", memory.kv_buffers), ("  images", memory.images)];
    rows.retain(|(word, _)| !absent.contains(&(*word, 0)));
    rows
}

/// One row for a model that is served beside the first one.
pub(super) fn row_beside(summary: &Summary) -> (&'static str, String) {
    let card = &summary.card;
    let tasks: Vec<String> = card.tasks.iter().map(Task::to_string).collect();
    let place = &summary.source;
    let size = ByteSize(summary.memory.total()).approximate();
    ("beside", format!("{} ({place}), {}: {}, {size}", card.id, card.dtype, tasks.join(", ")))
}

fn parameters(number: u64) -> String {
    match number {
        0..1_000_000 => format!("{:.0}K", number as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1}M", number as f64 / 1e6),
        _ => format!("{:.1}B", number as f64 / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameter_counts() {
        let check = |number: u64, words: &str| assert_eq!(parameters(number), words);
        check(3_499, "3K");
        check(3_520_000, "3.5M");
        check(124_439_808, "124.4M");
        check(596_049_920, "596.0M");
        check(7_615_616_512, "7.6B");
    }
}
