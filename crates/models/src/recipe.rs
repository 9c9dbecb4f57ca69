//! How pictures become the patches that a tower reads, as the model's files say.

use images::{ClipRecipe, Recipe};
use serde_json::Value;

use crate::vision::{Marks, Tower, TowerShape, Vision};
use crate::{ModelError, Repository};

/// Where models say it of still pictures and of clips: in a file of its own, or in an object of one that has both.
const STILL: (&str, &str) = ("preprocessor_config.json", "image_processor");
const CLIP: (&str, &str) = ("video_preprocessor_config.json", "video_processor");
const TOGETHER: &str = "processor_config.json";

/// Joins a tower with what its model's files say of pictures.
///
/// # Errors
/// When no file says it of still pictures, or it does not fit the tower.
pub(crate) fn vision(
    repository: &Repository,
    tower: Box<dyn Tower>,
    marks: Marks,
) -> Result<Vision, ModelError> {
    let shape = tower.shape();
    let (file, json) = said(repository, STILL)?.ok_or_else(|| repository.missing(STILL.0))?;
    let invalid = |source| ModelError::Recipe { path: repository.path(file), source };
    let recipe = Recipe::from_json(&json).map_err(invalid)?;
    fits(repository, (file, &recipe), shape)?;
    let clips = match said(repository, CLIP)? {
        None => None,
        Some((file, json)) => {
            let invalid = |source| ModelError::Recipe { path: repository.path(file), source };
            let recipe = ClipRecipe::from_json(&json).map_err(invalid)?;
            fits(repository, (file, &recipe.frame), shape)?;
            Some(recipe)
        }
    };
    Ok(Vision { tower, marks, recipe, clips })
}

/// The file that says it, and what it says.
fn said(
    repository: &Repository,
    (own, section): (&'static str, &str),
) -> Result<Option<(&'static str, Value)>, ModelError> {
    if repository.contains(own) {
        return Ok(Some((own, repository.json(own)?)));
    }
    if !repository.contains(TOGETHER) {
        return Ok(None);
    }
    let said = repository.json(TOGETHER)?[section].take();
    Ok((!said.is_null()).then_some((TOGETHER, said)))
}

fn fits(
    repository: &Repository,
    (file, recipe): (&str, &Recipe),
    shape: TowerShape,
) -> Result<(), ModelError> {
    for (key, found, expected) in [
        ("patch_size", recipe.patch_size, shape.patch),
        ("temporal_patch_size", recipe.temporal_patch_size, shape.temporal),
        ("merge_size", recipe.merge_size, shape.merge),
    ] {
        if found != expected {
            return Err(ModelError::Patches { path: repository.path(file), key, expected, found });
        }
    }
    Ok(())
}
