//! docs/cli.md is generated from the commands themselves and compared with them: `UPDATE_EXPECT=1` writes it anew.

use std::fmt::Write as _;
use std::path::Path;

use clap::{Arg, Args, Command, CommandFactory};
use tidegate::settings::{KEYS, Key, Settings};

use super::{Cli, exit};

const OPENING: &str = "\
# Command line

Generated from the commands themselves; a test compares them (`UPDATE_EXPECT=1 cargo test -p tidegate reference` writes
this page anew).

Standard output carries data only: text or JSON. Everything for people goes to standard error; `--quiet` silences what
is not a warning or an error. There are no progress bars where standard error is not a terminal, and `NO_COLOR` is
respected. A reader that closes the pipe ends the program quietly.

`tidegate run` reads its prompt from the argument, or from standard input where that is not a terminal, or opens a chat.
In the chat, `/help` lists the commands; Ctrl-C stops the answer that is being written, and leaves at an empty line when
pressed twice.
";

const SETTINGS: &str = "
## Settings

A flag counts more than a `TIDEGATE_*` variable, a variable more than the configuration file, and the file more than the
default. The file is the one that `--config` (or `TIDEGATE_CONFIG`) names, else `./tidegate.toml` if it exists. It is
TOML; the name before the dot is the section:

```toml
[queue]
max = 64

[memory]
kv = \"2GiB\"
```

A key that is not known is an error. `tidegate config show --origin` prints every setting with the value that counts and
where it came from, in a form that is itself a configuration file.

| flag | variable | file | default | meaning |
|---|---|---|---|---|
";

fn page() -> String {
    let mut command = Cli::command();
    command.build();
    let mut text = OPENING.to_owned();
    write!(text, "\n```text\n{}```\n\n## Every verb\n\n", exit_codes()).unwrap();
    text += "| option | meaning |\n|---|---|\n";
    for arg in command.get_arguments().filter(|arg| !is_setting(arg)) {
        writeln!(text, "| {} | {} |", signature(arg), meaning(arg)).unwrap();
    }
    for verb in command.get_subcommands().filter(|verb| verb.get_name() != "help") {
        section(verb, &mut text);
    }
    text += SETTINGS;
    let settings = Settings::augment_args(Command::new("settings"));
    for key in KEYS {
        let arg = settings.get_arguments().find(|arg| arg.get_id() == key.id).unwrap();
        writeln!(text, "{}", row(key, arg)).unwrap();
    }
    text
}

fn exit_codes() -> String {
    format!("{}\n", exit::TABLE)
}

/// A verb with what is its own; verbs inside it follow.
fn section(verb: &Command, text: &mut String) {
    let inner: Vec<_> = verb.get_subcommands().filter(|verb| verb.get_name() != "help").collect();
    if inner.is_empty() {
        let name = verb.get_bin_name().unwrap_or_else(|| verb.get_name());
        write!(text, "\n## `{name}`\n\n{}.\n", about(verb)).unwrap();
        let own: Vec<_> =
            verb.get_arguments().filter(|arg| !is_setting(arg) && !is_everywhere(arg)).collect();
        if !own.is_empty() {
            *text += "\n| argument | default | meaning |\n|---|---|---|\n";
        }
        for arg in own {
            writeln!(text, "| {} | {} | {} |", signature(arg), default(arg), meaning(arg)).unwrap();
        }
        if verb.get_arguments().any(is_setting) {
            *text += &format!("\nSettings: {}.\n", groups(verb).join(", "));
        }
    }
    for verb in inner {
        section(verb, text);
    }
}

/// The sections of the configuration file of which the verb knows the settings.
fn groups(verb: &Command) -> Vec<String> {
    let mut sections: Vec<String> = Vec::new();
    for key in KEYS.iter().filter(|key| verb.get_arguments().any(|arg| arg.get_id() == key.id)) {
        let section = format!("`{}`", key.section);
        if !sections.contains(&section) {
            sections.push(section);
        }
    }
    sections
}

fn about(command: &Command) -> String {
    command.get_about().map(ToString::to_string).unwrap_or_default()
}

fn is_setting(arg: &Arg) -> bool {
    KEYS.iter().any(|key| arg.get_id() == key.id)
}

fn is_everywhere(arg: &Arg) -> bool {
    ["config", "quiet", "help", "version"].contains(&arg.get_id().as_str())
}

fn signature(arg: &Arg) -> String {
    let names = arg.get_value_names().unwrap_or_default().join(" ");
    let Some(long) = arg.get_long() else { return format!("`{names}`") };
    let short = arg.get_short().map_or_else(String::new, |short| format!("`-{short}`, "));
    let takes_value = arg.get_action().takes_values();
    let value = if takes_value { format!(" {names}") } else { String::new() };
    let value = if arg.is_require_equals_set() { format!("[={names}]") } else { value };
    format!("{short}`--{long}{value}`")
}

fn default(arg: &Arg) -> String {
    let values = arg.get_default_values().iter().filter(|_| arg.get_action().takes_values());
    values.map(|value| format!("`{}`", value.to_string_lossy())).collect::<Vec<_>>().join(" ")
}

fn meaning(arg: &Arg) -> String {
    let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
    let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
    let choices = arg.get_possible_values();
    let choices: Vec<_> = choices
        .iter()
        .filter(|_| arg.get_action().takes_values())
        .map(clap::builder::PossibleValue::get_name)
        .collect();
    let choices = if choices.is_empty() { String::new() } else { format!(" (`{}`)", choices.join("`, `")) };
    format!("{}{choices}", help.trim_end_matches('.')).replace('|', "\\|")
}

fn row(key: &Key, arg: &Arg) -> String {
    let default = default(arg);
    let default = if default.is_empty() { key.unset.to_owned() } else { default };
    let (flag, variable, path, help) = (signature(arg), key.variable(), key.path(), meaning(arg));
    format!("| {flag} | `{variable}` | `{path}` | {default} | {help} |")
}

#[test]
#[expect(clippy::disallowed_methods, reason = "UPDATE_EXPECT is the switch of the tests, not a setting")]
fn reference_page_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/cli.md");
    let page = page();
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    let first = page.lines().zip(written.lines()).find(|(now, then)| now != then);
    assert!(
        page == written,
        "docs/cli.md is not what the commands say now (first difference: {first:?}); \
         run UPDATE_EXPECT=1 cargo test -p tidegate reference"
    );
}

#[test]
fn command_tree_is_sound() {
    Cli::command().debug_assert();
}

/// The words of a line of a shell, whose quotes hold spaces together.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut quote) = (vec![String::new()], None);
    for letter in line.chars() {
        match (quote, letter) {
            (None, '"' | '\'') => quote = Some(letter),
            (Some(open), letter) if open == letter => quote = None,
            (None, ' ') => words.push(String::new()),
            (_, letter) => words.last_mut().unwrap().push(letter),
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

#[test]
fn commands_on_the_front_page_are_understood() {
    let page =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../README.md")).unwrap();
    let lines = page.lines().filter_map(|line| {
        let line = line.split("  #").next()?.trim_end();
        let line = line.replace("cargo run --release -- ", "tidegate ");
        line.split(" | ").find(|command| command.starts_with("tidegate ")).map(str::to_owned)
    });
    let lines: Vec<_> = lines.collect();
    assert!(lines.len() > 8, "only {lines:?} were found");
    for line in lines {
        let parsed = Cli::command().try_get_matches_from(words(&line));
        assert!(parsed.is_ok(), "{line}: {}", parsed.unwrap_err());
    }
}
