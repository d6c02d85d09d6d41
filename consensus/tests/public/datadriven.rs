//! Reads files of commands with expected answers.
//!
//! ```text
//! # a comment
//! command argument key=value key=(a, b)
//! lines of input
//! ----
//! the expected answer, up to an empty line
//! ```
//!
//! An answer that contains empty lines stands between two pairs of `----` lines.

use std::path::{Path, PathBuf};

/// One command of a file.
#[derive(Debug, PartialEq, Eq)]
pub struct Command {
    /// Where it stands, for messages.
    pub line: usize,
    pub name: String,
    /// Keys and the values in brackets, in the order given. An argument without a value has none.
    pub arguments: Vec<(String, Vec<String>)>,
    /// The words of the lines between command and answer.
    pub input: Vec<String>,
    pub expected: String,
}

impl Command {
    /// The values of an argument, if it is there.
    pub fn values(&self, key: &str) -> Option<&[String]> {
        self.arguments.iter().find(|(name, _)| name == key).map(|(_, values)| &values[..])
    }
}

/// The folder of the public tables, if this machine has it.
pub fn shared_folder() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/raft-scenarios");
    folder.is_dir().then_some(folder)
}

/// The names of the text files in a folder, sorted.
pub fn text_files(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let names = entries.map(|entry| entry.expect("readable").file_name().into_string().expect("plain names"));
    let mut names: Vec<String> = names.filter(|name| name.ends_with(".txt")).collect();
    names.sort();
    names
}

/// Runs a file: every command is handed to `answer`, and what that says must be what the file says. Returns how many
/// there were.
pub fn run(path: &Path, mut answer: impl FnMut(&Command) -> String) -> usize {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let commands = parse(&text);
    assert!(!commands.is_empty(), "{} has no commands", path.display());
    for command in &commands {
        let answered = answer(command);
        let (expected, place) = (&command.expected, format!("{}:{}", path.display(), command.line));
        assert_eq!(answered.trim_end(), expected.trim_end(), "{place}: {}\n{answered}", command.name);
    }
    commands.len()
}

/// All commands of a file.
pub fn parse(text: &str) -> Vec<Command> {
    let mut lines = text.lines().enumerate().peekable();
    let mut commands = vec![];
    while let Some((number, line)) = lines.next() {
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        let mut input = vec![];
        for (_, line) in lines.by_ref().take_while(|(_, line)| *line != MARK) {
            input.extend(line.split_whitespace().map(str::to_owned));
        }
        let long = lines.next_if(|(_, line)| *line == MARK).is_some();
        let mut expected = String::new();
        while let Some((_, line)) = lines.next() {
            let ends =
                if long { line == MARK && lines.next_if(|(_, line)| *line == MARK).is_some() } else { line.is_empty() };
            if ends {
                break;
            }
            expected.push_str(line);
            expected.push('\n');
        }
        let (name, arguments) = split(line);
        commands.push(Command { line: number + 1, name, arguments, input, expected });
    }
    commands
}

/// The words of a command line; blanks within brackets do not separate.
fn split(line: &str) -> (String, Vec<(String, Vec<String>)>) {
    let mut words = vec![String::new()];
    let mut depth = 0;
    for letter in line.chars() {
        match letter {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        let word = words.last_mut().expect("there is one");
        if !letter.is_whitespace() {
            word.push(letter);
        } else if depth == 0 && !word.is_empty() {
            words.push(String::new());
        }
    }
    words.retain(|word| !word.is_empty());
    let argument = |word: &String| match word.split_once('=') {
        None => (word.clone(), vec![]),
        Some((key, values)) => {
            let values = values.trim_start_matches('(').trim_end_matches(')');
            (key.to_owned(), values.split(',').filter(|value| !value.is_empty()).map(str::to_owned).collect())
        }
    };
    (words[0].clone(), words[1..].iter().map(argument).collect())
}

const MARK: &str = "----";

#[test]
fn commands_have_arguments_input_and_answers() {
    let text = "# why\n\ndo it=(1, 2,_) now=yes\nv1 l2\nr3\n----\none\ntwo\n\nnext\n----\n----\na\n\nb\n----\n----\n\nlast\n----\n";
    let commands = parse(text);
    assert_eq!(commands.len(), 3);
    assert_eq!((commands[0].line, &commands[0].name[..]), (3, "do"));
    assert_eq!(commands[0].values("it"), Some(&["1".to_owned(), "2".to_owned(), "_".to_owned()][..]));
    assert_eq!(commands[0].values("now"), Some(&["yes".to_owned()][..]));
    assert_eq!(commands[0].values("then"), None);
    assert_eq!(commands[0].input, ["v1", "l2", "r3"]);
    assert_eq!(commands[0].expected, "one\ntwo\n");
    assert_eq!(commands[1].expected, "a\n\nb\n");
    assert_eq!((commands[2].line, &commands[2].expected[..]), (19, ""));
}
