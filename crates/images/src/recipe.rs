//! How a model wants its pictures, as its `preprocessor_config.json` says.

use serde_json::Value;

use crate::error::RecipeError;

/// How a picture becomes patches.
#[derive(Clone, Debug, PartialEq)]
pub struct Recipe {
    /// Pixels along each side of a patch.
    pub patch_size: usize,
    /// Frames in a patch; a still picture is repeated.
    pub temporal_patch_size: usize,
    /// Patches along each side of a token.
    pub merge_size: usize,
    /// The least area in pixels after resizing (`size.shortest_edge`, which is an area in spite of its name). Of a clip:
    /// the area of all frames together.
    pub min_pixels: usize,
    /// The largest area in pixels after resizing (`size.longest_edge`). Of a clip: the area of all frames together.
    pub max_pixels: usize,
    /// Subtracted from every channel after rescaling.
    pub mean: [f32; 3],
    /// Every channel is divided by it after that.
    pub std: [f32; 3],
    /// What a byte is multiplied by first, 1/255 by default.
    pub rescale: f64,
}

/// Larger numbers in a configuration are a mistake, and would overflow what is computed from them.
const LARGEST_PATCH: usize = 256;
const LARGEST_AREA: usize = 1 << 40;

impl Recipe {
    /// Reads `preprocessor_config.json`, `video_preprocessor_config.json`, or one of the objects of a
    /// `processor_config.json`.
    ///
    /// # Errors
    /// If a key without a default is missing, or one holds what cannot be followed.
    pub fn from_json(config: &Value) -> Result<Self, RecipeError> {
        plain(config, "resample", &[Value::from(3)], "3 (bicubic)")?;
        let on = [Value::from(true)];
        plain(config, "do_resize", &on, "true")?;
        plain(config, "do_rescale", &on, "true")?;
        plain(config, "do_normalize", &on, "true")?;
        let size = config.get("size").unwrap_or(&Value::Null);
        let area = |new: &'static str, old: &'static str| {
            let found = config.get(old).filter(|value| !value.is_null()).or_else(|| size.get(new));
            count(found, new, 1..=LARGEST_AREA)
        };
        let recipe = Self {
            patch_size: count(config.get("patch_size"), "patch_size", 1..=LARGEST_PATCH)?,
            temporal_patch_size: count(config.get("temporal_patch_size"), "temporal_patch_size", 1..=16)?,
            merge_size: count(config.get("merge_size"), "merge_size", 1..=16)?,
            min_pixels: area("shortest_edge", "min_pixels")?,
            max_pixels: area("longest_edge", "max_pixels")?,
            mean: channels(config, "image_mean", f64::NEG_INFINITY)?,
            std: channels(config, "image_std", 0.0)?,
            rescale: match config.get("rescale_factor") {
                None | Some(Value::Null) => 1.0 / 255.0,
                Some(value) => real(value, "rescale_factor", 0.0)?,
            },
        };
        if recipe.max_pixels < recipe.min_pixels {
            let found = format!("{}, less than shortest_edge {}", recipe.max_pixels, recipe.min_pixels);
            let expected = "an area not less than shortest_edge";
            return Err(RecipeError::Invalid { key: "longest_edge", found, expected });
        }
        Ok(recipe)
    }

    /// Pixels along each side of a token: what sides are rounded to.
    pub fn factor(&self) -> usize {
        self.patch_size * self.merge_size
    }

    /// Values of one patch: channels, frames, rows, columns.
    pub fn patch_values(&self) -> usize {
        3 * self.temporal_patch_size * self.patch_size * self.patch_size
    }

    /// Everything that decides about values, as bytes to be hashed beside a picture's own.
    pub(crate) fn fingerprint(&self) -> Vec<u8> {
        let counts =
            [self.patch_size, self.temporal_patch_size, self.merge_size, self.min_pixels, self.max_pixels];
        let counts = counts.iter().flat_map(|count| (*count as u64).to_le_bytes());
        let reals = self.mean.iter().chain(&self.std).flat_map(|real| real.to_le_bytes());
        counts.chain(reals).chain(self.rescale.to_le_bytes()).collect()
    }
}

/// A key that may be absent, and otherwise must hold one of a few values: nothing else is implemented.
fn plain(
    config: &Value,
    key: &'static str,
    allowed: &[Value],
    expected: &'static str,
) -> Result<(), RecipeError> {
    match config.get(key) {
        None | Some(Value::Null) => Ok(()),
        Some(found) if allowed.contains(found) => Ok(()),
        Some(found) => Err(RecipeError::Invalid { key, found: found.to_string(), expected }),
    }
}

pub(crate) fn count(
    found: Option<&Value>,
    key: &'static str,
    range: std::ops::RangeInclusive<usize>,
) -> Result<usize, RecipeError> {
    let found = found.filter(|value| !value.is_null()).ok_or(RecipeError::Missing { key })?;
    let number = found.as_u64().and_then(|number| usize::try_from(number).ok());
    number.filter(|number| range.contains(number)).ok_or_else(|| RecipeError::Invalid {
        key,
        found: found.to_string(),
        expected: "a whole number of a sensible size",
    })
}

pub(crate) fn real(found: &Value, key: &'static str, above: f64) -> Result<f64, RecipeError> {
    let number = found.as_f64();
    number.filter(|number| number.is_finite() && *number > above).ok_or_else(|| RecipeError::Invalid {
        key,
        found: found.to_string(),
        expected: "a finite number, above 0 where it scales",
    })
}

fn channels(config: &Value, key: &'static str, above: f64) -> Result<[f32; 3], RecipeError> {
    let found = config.get(key).ok_or(RecipeError::Missing { key })?;
    let list = found.as_array().map(Vec::as_slice).unwrap_or_default();
    let [red, green, blue] = list else {
        let expected = "a list of three numbers";
        return Err(RecipeError::Invalid { key, found: found.to_string(), expected });
    };
    Ok([real(red, key, above)? as f32, real(green, key, above)? as f32, real(blue, key, above)? as f32])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn config() -> Value {
        json!({
            "size": { "longest_edge": 16777216, "shortest_edge": 65536 },
            "patch_size": 16, "temporal_patch_size": 2, "merge_size": 2,
            "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5],
            "image_processor_type": "Qwen2VLImageProcessorFast"
        })
    }

    #[test]
    fn published_files_are_read() {
        let recipe = Recipe::from_json(&config()).unwrap();
        assert_eq!((recipe.factor(), recipe.patch_values()), (32, 1536));
        assert_eq!((recipe.min_pixels, recipe.max_pixels), (65536, 16_777_216));
        let mut older = config();
        older["min_pixels"] = json!(4096);
        older["max_pixels"] = json!(8192);
        let older = Recipe::from_json(&older).unwrap();
        assert_eq!((older.min_pixels, older.max_pixels), (4096, 8192));
        assert_ne!(older.fingerprint(), recipe.fingerprint());
    }

    #[test]
    fn what_cannot_be_followed_is_named() {
        let check = |key: &str, value: Value, expected: &str| {
            let mut config = config();
            config[key] = value;
            let error = Recipe::from_json(&config).unwrap_err().to_string();
            assert!(error.contains(expected), "{key}: '{error}' lacks '{expected}'");
        };
        check("patch_size", Value::Null, "lacks 'patch_size'");
        check("patch_size", json!(0), "'patch_size' in the preprocessor configuration is 0");
        check("merge_size", json!(-2), "'merge_size'");
        check("size", json!({ "height": 224 }), "lacks 'shortest_edge'");
        check("max_pixels", json!(4096), "longest_edge");
        check("max_pixels", json!(u64::MAX), "longest_edge");
        check("image_mean", json!([0.5]), "three numbers");
        check("image_std", json!([0.5, 0.0, 0.5]), "'image_std'");
        check("resample", json!(2), "expected 3 (bicubic)");
        check("do_resize", json!(false), "expected true");
        check("rescale_factor", json!("x"), "rescale_factor");
    }
}
