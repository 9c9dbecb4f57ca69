//! What all models that make vectors do with them.

use protocol::Refusal;

/// Refuses to keep more numbers of vectors than they have.
pub(crate) fn check_dimensions(asked: Option<u32>, width: u32) -> Result<(), Refusal> {
    match asked.filter(|asked| !(1..=width).contains(asked)) {
        None => Ok(()),
        Some(wrong) => {
            let message = format!(
                "dimensions must be from 1 to {width}, the width of the model's vectors, got {wrong}"
            );
            Err(Refusal::InvalidParameter { param: "dimensions".to_owned(), message })
        }
    }
}

/// Refuses pairs that do not come out even.
pub(crate) fn check_pairs(queries: usize, documents: usize) -> Result<(), Refusal> {
    if documents > 0 && (queries == 1 || queries == documents) {
        return Ok(());
    }
    let message = format!(
        "expected one query for all documents or one for each, and at least one document; found {queries} \
         queries and {documents} documents"
    );
    Err(Refusal::InvalidParameter { param: "documents".to_owned(), message })
}

/// The leading numbers of a vector, scaled to unit length.
pub(crate) fn shortened(mut values: Vec<f32>, dimensions: Option<u32>) -> Vec<f32> {
    let Some(dimensions) = dimensions else { return values };
    values.truncate(dimensions as usize);
    scaled(values)
}

/// A vector scaled to unit length.
pub(crate) fn scaled(mut values: Vec<f32>) -> Vec<f32> {
    let norm = values.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt().max(1e-12);
    values.iter_mut().for_each(|value| *value = (f64::from(*value) / norm) as f32);
    values
}

/// The cosines of documents with their queries, or with the only one: the first `queries` vectors are those of the queries.
pub(crate) fn cosines(vectors: &[Vec<f32>], queries: usize) -> Vec<f32> {
    let (queries, documents) = vectors.split_at(queries);
    queries.iter().cycle().zip(documents).map(|(query, document)| cosine(query, document)).collect()
}

fn cosine(a: &[f32], b: &[f32]) -> f32 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    (dot(a, b) / (dot(a, a) * dot(b, b)).sqrt().max(1e-12)) as f32
}
