//! How pictures become the patches that a tower reads, as the model's files say.

use images::Recipe;

use crate::vision::{Marks, Tower, Vision};
use crate::{ModelError, Repository};

/// Where models say it; the second file has it in an object of this name.
const FILE: &str = "preprocessor_config.json";
const TOGETHER: (&str, &str) = ("processor_config.json", "image_processor");

/// Joins a tower with what its model's files say of pictures.
///
/// # Errors
/// When no file says it, or it does not fit the tower.
pub(crate) fn vision(
    repository: &Repository,
    tower: Box<dyn Tower>,
    marks: Marks,
) -> Result<Vision, ModelError> {
    let (file, section) = match (repository.contains(FILE), repository.contains(TOGETHER.0)) {
        (false, true) => (TOGETHER.0, Some(TOGETHER.1)),
        (true, _) => (FILE, None),
        (false, false) => return Err(repository.missing(FILE)),
    };
    let json = repository.json(file)?;
    let json = section.map_or(&json, |section| &json[section]);
    let path = repository.path(file);
    let recipe =
        Recipe::from_json(json).map_err(|source| ModelError::Recipe { path: path.clone(), source })?;
    let shape = tower.shape();
    for (key, found, expected) in [
        ("patch_size", recipe.patch_size, shape.patch),
        ("temporal_patch_size", recipe.temporal_patch_size, shape.temporal),
        ("merge_size", recipe.merge_size, shape.merge),
    ] {
        if found != expected {
            return Err(ModelError::Patches { path, key, expected, found });
        }
    }
    Ok(Vision { tower, marks, recipe })
}
