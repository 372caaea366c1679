//! `init`: a project to begin with.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf, absolute};

use clap::{Args, ValueEnum};
use cloudserve_protocol::ids::FunctionName;
use serde_json::json;

use super::error::ClientError;
use super::output::Output;
use super::prompt;

/// Stands for the function's name in a template.
const NAME: &str = "{{name}}";

#[derive(Args)]
pub(crate) struct Init {
    /// The folder to make.
    #[arg(default_value = ".")]
    path: PathBuf,

    /// What to begin with; asked for if it is left out.
    #[arg(long, short, value_enum)]
    template: Option<Template>,

    /// The function's name [default: that of the folder].
    #[arg(long, short, value_name = "NAME")]
    name: Option<String>,

    /// Print JSON on standard output, errors too: for scripts.
    #[arg(long, help_heading = "Common options")]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Template {
    /// A function of one file, in JavaScript.
    Hello,
    /// TypeScript with types for the event and an npm package.
    Typescript,
    /// An Express app.
    Express,
    /// A Hono app.
    Hono,
    /// fetch(request, env, ctx), with work after the answer.
    Worker,
}

macro_rules! template_files {
    ($folder:literal, $($file:literal),+) => {
        &[$(($file, include_str!(concat!("../../templates/", $folder, "/", $file)))),+]
    };
}

/// Of every template.
const COMMON: &[(&str, &str)] = &[
    ("cloudserve.toml", include_str!("../../templates/cloudserve.toml")),
    (".gitignore", include_str!("../../templates/gitignore")),
];

impl Template {
    fn files(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Hello => template_files!("hello", "index.mjs"),
            Self::Typescript => {
                template_files!("typescript", "index.ts", "package.json", "tsconfig.json")
            }
            Self::Express => template_files!("express", "index.mjs", "package.json"),
            Self::Hono => template_files!("hono", "index.ts", "package.json"),
            Self::Worker => template_files!("worker", "index.ts", "package.json"),
        }
    }

    fn description(self) -> String {
        let value = self.to_possible_value().expect("no template is hidden");
        let help = value.get_help().map(ToString::to_string).unwrap_or_default();
        format!("{:10}  {help}", value.get_name())
    }
}

impl Init {
    pub(crate) fn output(&self) -> Output {
        Output { is_json: self.json }
    }
}

pub(crate) fn run(args: &Init) -> Result<(), ClientError> {
    // Before anybody is asked and anything is made.
    let name = name(&args.path, args.name.as_deref())?;
    let template = match args.template {
        Some(template) => template,
        None if prompt::is_interactive() && !args.json => {
            let all: Vec<_> = Template::value_variants().iter().map(|t| t.description()).collect();
            Template::value_variants()[prompt::choose("What shall it be?", &all)?]
        }
        None => Template::Hello,
    };
    fs::create_dir_all(&args.path).map_err(ClientError::file(&args.path))?;
    let root = args.path.canonicalize().map_err(ClientError::file(&args.path))?;
    let files: Vec<_> = COMMON.iter().chain(template.files()).collect();
    for (file, _) in &files {
        // Everything or nothing.
        if *file != ".gitignore" && root.join(file).exists() {
            return Err(ClientError::Project {
                path: root.join(file),
                message: "is there already; nothing was written".to_owned(),
                hint: Some("choose another folder: `cloudserve init FOLDER`".to_owned()),
            });
        }
    }
    let mut written = Vec::new();
    for (file, text) in files {
        if write_new(&root.join(file), &text.replace(NAME, name.as_str()))? {
            written.push(*file);
        }
    }
    let document = json!({ "name": name, "path": root, "files": written });
    args.output().result(&document, |out| {
        writeln!(out, "{name}: {}", written.join(", "))?;
        writeln!(out, "\nNext:")?;
        if args.path != Path::new(".") {
            writeln!(out, "  cd {}", args.path.display())?;
        }
        writeln!(out, "  cloudserve dev       # runs it here, again after every change")?;
        writeln!(out, "  cloudserve deploy    # deploys it")?;
        writeln!(out, "  cloudserve invoke .  # calls it")
    })
}

fn name(path: &Path, given: Option<&str>) -> Result<FunctionName, ClientError> {
    // One that is still to be made has no other path.
    let folder =
        path.canonicalize().or_else(|_| absolute(path)).map_err(ClientError::file(path))?;
    let of_folder = folder.file_name().unwrap_or_default().to_string_lossy();
    let name = given.unwrap_or(&of_folder);
    name.parse().map_err(|error| {
        ClientError::usage(
            format!("{name:?} cannot be a function's name: {error}"),
            "give one with --name",
        )
    })
}

/// Whether it was written; what is there stays.
fn write_new(path: &Path, text: &str) -> Result<bool, ClientError> {
    match OpenOptions::new().write(true).create_new(true).open(path) {
        Ok(mut file) => {
            file.write_all(text.as_bytes()).map_err(ClientError::file(path))?;
            Ok(true)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(source) => Err(ClientError::File { path: path.to_owned(), source }),
    }
}
