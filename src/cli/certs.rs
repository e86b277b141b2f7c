//! `ringfence certs`: a throw-away certificate authority and server certificate for development.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use jiff::{SignedDuration, Timestamp};

use crate::certs::{Access, Authority, Names, Validity, write_file};

/// Make certificates.
#[derive(Debug, Args)]
pub struct CertsArgs {
    #[command(subcommand)]
    command: CertsCommand,
}

#[derive(Debug, Subcommand)]
enum CertsCommand {
    /// Make a throw-away authority and one server certificate signed by it
    ///
    /// Writes ca.crt (what clients must trust: the caBundle of a webhook registration), tls.crt and tls.key (what the
    /// server shows and holds). The authority's own key is thrown away unless --keep-ca-key is given, so nobody can
    /// sign with it later. Not for production.
    Dev(DevArgs),
}

#[derive(Debug, Args)]
struct DevArgs {
    /// Folder to write to; made when it is not there
    #[arg(long, value_name = "DIR")]
    out: PathBuf,

    /// DNS name or IP address of the server, such as localhost, 127.0.0.1 or ringfence.ringfence-system.svc; repeat for more
    #[arg(long = "name", value_name = "NAME", required = true)]
    names: Vec<String>,

    /// How long both certificates hold, such as 24h or 7d 12h
    #[arg(long, value_name = "TIME", default_value = "24h")]
    valid: SignedDurationArg,

    /// Also write ca.key, to sign more certificates for the same names
    #[arg(long)]
    keep_ca_key: bool,

    /// Replace files that are already there
    #[arg(long)]
    replace: bool,
}

/// A time span in words ("24h", "7d 12h"), where a day has 24 hours.
#[derive(Debug, Clone, Copy)]
pub(super) struct SignedDurationArg(pub(super) SignedDuration);

impl std::str::FromStr for SignedDurationArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let span: jiff::Span = text
            .parse()
            .map_err(|_| format!("{text:?} is no time span: write 24h, 30m or 7d"))?;
        let length = span
            .to_duration(jiff::SpanRelativeTo::days_are_24_hours())
            .map_err(|_| {
                format!("{text:?} has no fixed length: use days, hours, minutes or seconds")
            })?;
        if length <= SignedDuration::ZERO {
            return Err(format!("{text:?} is not a time to come"));
        }
        Ok(Self(length))
    }
}

/// Runs `ringfence certs`, saying on `out` what was written.
pub fn run(args: &CertsArgs, out: &mut dyn Write) -> anyhow::Result<()> {
    match &args.command {
        CertsCommand::Dev(args) => dev(args, Timestamp::now(), out),
    }
}

fn dev(args: &DevArgs, now: Timestamp, out: &mut dyn Write) -> anyhow::Result<()> {
    let names = Names::parse(&args.names)?;
    let validity = Validity::starting(now, args.valid.0)?;
    let authority = Authority::generate("ringfence throw-away authority", names.clone(), validity)?;
    let leaf = authority.issue(&names, validity)?;

    let mut files: Vec<(&str, &str, Access)> = vec![
        ("tls.key", leaf.key().expose(), Access::Owner),
        ("tls.crt", leaf.certificate_pem(), Access::Everybody),
        ("ca.crt", authority.certificate_pem(), Access::Everybody),
    ];
    if args.keep_ca_key {
        files.push(("ca.key", authority.key().expose(), Access::Owner));
    }
    if !args.replace {
        refuse_to_replace(&args.out, files.iter().map(|(name, ..)| *name))?;
    }
    std::fs::create_dir_all(&args.out)
        .with_context(|| format!("cannot make the folder {}", args.out.display()))?;
    for (name, contents, access) in files {
        let path = args.out.join(name);
        write_file(&path, contents.as_bytes(), access)?;
        writeln!(out, "{}", path.display())?;
    }
    writeln!(out, "valid for {names} until {}", leaf.facts().not_after())?;
    Ok(())
}

/// A file of the same name may be somebody's real key.
fn refuse_to_replace<'n>(
    folder: &Path,
    names: impl Iterator<Item = &'n str>,
) -> anyhow::Result<()> {
    let there: Vec<_> = names
        .map(|name| folder.join(name))
        .filter(|path| path.exists())
        .collect();
    if let Some(first) = there.first() {
        bail!(
            "{} is already there; give --replace to replace it, or another --out",
            first.display()
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::certs::CertificateFacts;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        args: CertsArgs,
    }

    fn call(arguments: &[&str]) -> anyhow::Result<String> {
        let program = Program::try_parse_from([&["certs"], arguments].concat())?;
        let mut out = Vec::new();
        run(&program.args, &mut out)?;
        Ok(String::from_utf8(out)?)
    }

    #[test]
    fn dev_writes_a_pair_and_its_authority_and_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("new/certs");
        let out = out.to_str().unwrap();
        let printed = call(&[
            "dev",
            "--out",
            out,
            "--name",
            "localhost",
            "--name",
            "127.0.0.1",
            "--valid",
            "2d 1h",
        ])
        .unwrap();
        assert!(
            printed.contains("tls.crt")
                && printed.contains("valid for localhost, 127.0.0.1 until "),
            "{printed}"
        );
        let read = |name: &str| std::fs::read(Path::new(out).join(name)).unwrap();
        let leaf = CertificateFacts::from_pem(&read("tls.crt")).unwrap();
        assert_eq!(leaf.names().len(), 2);
        assert!(
            CertificateFacts::from_pem(&read("ca.crt"))
                .unwrap()
                .is_authority()
        );
        assert!(
            !Path::new(out).join("ca.key").exists(),
            "the authority's key is thrown away"
        );

        let error = call(&["dev", "--out", out, "--name", "localhost"])
            .unwrap_err()
            .to_string();
        assert!(error.contains("already there"), "{error}");
        call(&[
            "dev",
            "--out",
            out,
            "--name",
            "localhost",
            "--replace",
            "--keep-ca-key",
        ])
        .unwrap();
        assert!(Path::new(out).join("ca.key").exists());
    }

    #[test]
    fn times_and_names_that_make_no_sense_are_refused_before_anything_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("certs");
        let out = out.to_str().unwrap();
        for arguments in [
            &[
                "dev",
                "--out",
                out,
                "--name",
                "localhost",
                "--valid",
                "soon",
            ][..],
            &["dev", "--out", out, "--name", "localhost", "--valid", "-1h"],
            &["dev", "--out", out, "--name", "localhost", "--valid", "1mo"],
            &["dev", "--out", out, "--name", "10.0.0.300"],
            &["dev", "--out", out],
        ] {
            assert!(call(arguments).is_err(), "{arguments:?}");
        }
        assert!(!Path::new(out).exists());
    }
}
