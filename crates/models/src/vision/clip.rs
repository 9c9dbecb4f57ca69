//! How a prompt tells the frames of a clip and their times.

/// Marks of the published chat templates.
const PAD: &str = "<|video_pad|>";
const START: &str = "<|vision_start|>";
const END: &str = "<|vision_end|>";

/// What of a rendered prompt the frames of a clip replace. Programs differ; the model was published with the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClipForm {
    /// The placeholder and the marks around it, as in transformers 4.57.
    #[default]
    Marks,
    /// The placeholder alone, so that marks stand around all frames and around each: as in transformers 5.
    Pad,
}

impl ClipForm {
    /// Puts the time of every frame, in seconds, and a placeholder of its own in place of each clip's placeholder; `None`
    /// unless there are as many placeholders as clips.
    pub fn expand(self, rendered: &str, clips: &[Vec<f64>]) -> Option<String> {
        let replaced = match self {
            Self::Marks => format!("{START}{PAD}{END}"),
            Self::Pad => PAD.to_owned(),
        };
        let mut pieces = rendered.split(&replaced);
        let mut text = pieces.next().unwrap_or_default().to_owned();
        let mut clips = clips.iter();
        for piece in pieces {
            for seconds in clips.next()? {
                text.push_str(&format!("<{seconds:.1} seconds>{START}{PAD}{END}"));
            }
            text.push_str(piece);
        }
        clips.next().is_none().then_some(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_told_with_their_times_in_both_forms() {
        // Halves go to the even digit, as they do where the model was trained.
        let clips = [vec![0.125, 0.625, 1.0, 0.25, 0.75]];
        let frames = ["0.1", "0.6", "1.0", "0.2", "0.8"]
            .map(|time| format!("<{time} seconds><|vision_start|><|video_pad|><|vision_end|>"))
            .concat();
        let rendered = "see <|vision_start|><|video_pad|><|vision_end|>!";
        assert_eq!(ClipForm::Marks.expand(rendered, &clips), Some(format!("see {frames}!")));
        let nested = format!("see <|vision_start|>{frames}<|vision_end|>!");
        assert_eq!(ClipForm::Pad.expand(rendered, &clips), Some(nested));
        for (text, clips) in [("none", &clips[..]), (rendered, &[])] {
            assert_eq!(ClipForm::Pad.expand(text, clips), None);
        }
    }
}
