use clap::Parser;

use sparq_models::attention::{MethodSpec, key};

use super::{
    flags::{FLAGS, NO_MEAN_VALUE, SIZES},
    *,
};
use crate::args::{Cli, Command};

fn args(flags: &str) -> Result<AttentionArgs, clap::Error> {
    let words = ["sparq", "generate", "text"].into_iter().chain(flags.split_whitespace());
    match Cli::try_parse_from(words)?.command {
        Command::Generate(args) => Ok(args.attention),
        _ => unreachable!("generate was typed"),
    }
}

fn notation(flags: &str) -> String {
    match args(flags).unwrap().resolve(false).unwrap() {
        AttentionPlan::Method { spec, dense_layers: 0 } => spec.to_string(),
        other => panic!("{flags} gave {other:?}"),
    }
}

#[test]
fn each_flag_does_what_it_says() {
    assert_eq!(notation("--attention dense --dense-layers 2"), "dense");
    assert_eq!(notation("--attention dense --dense-below 9"), "dense");
    assert_eq!(notation(""), "sparq:min-k=128");
    assert_eq!(notation("--compression-ratio 4 --min-top-k 32"), "sparq@4:min-k=32");
    assert_eq!(notation("--sparq-rank 16 --sparq-top-k 96"), "sparq:r=16:k=96");
    assert_eq!(notation("--local-window 7"), "sparq:l=7:min-k=128");
    assert_eq!(notation("--no-mean-value"), "sparq:mean=off:min-k=128");
    assert_eq!(notation("--attention sparq:mean=on"), "sparq:mean=on:min-k=128");
    assert_eq!(notation("--group-scores softmax"), "sparq:group=softmax:min-k=128");
    assert_eq!(notation("--dense-below 512"), "sparq:min-k=128:dense-below=512");
    assert_eq!(notation("--k-index int8"), "sparq:min-k=128:kt=int8");
    assert_eq!(notation("--choice buckets"), "sparq:min-k=128:topk=buckets");
    assert_eq!(notation("--k-index auto"), "sparq:min-k=128:kt=cache");
    for kind in MethodKind::ALL.into_iter().filter(|kind| !MethodSpec::from(*kind).takes("min-k")) {
        assert_eq!(notation(&format!("--attention {kind}")), kind.name());
    }
    assert_eq!(notation("--attention sparq:r=16:k=64"), "sparq:r=16:k=64");
    assert_eq!(notation("--attention h2o --compression-ratio 4 --local-window 3"), "h2o@4:l=3");
    assert_eq!(notation("--dense-below auto"), "sparq:min-k=128");
    let spec = MethodSpec::parse("quest@4").unwrap();
    let plan = args("--attention quest@4 --dense-layers 2").unwrap().resolve(true).unwrap();
    assert_eq!(plan, AttentionPlan::Method { spec, dense_layers: 2 });
}

#[test]
fn the_small_model_runs_sparse_at_any_length() {
    let spec = |flags: &str| match args(flags).unwrap().resolve(true).unwrap() {
        AttentionPlan::Method { spec, .. } => spec.to_string(),
        other => panic!("{flags} gave {other:?}"),
    };
    assert_eq!(spec(""), format!("sparq:min-k={}:dense-below=0", crate::demo::MIN_TOP_K));
    assert_eq!(spec("--attention sparq:r=4:k=8 --dense-below auto"), "sparq:r=4:k=8");
    assert_eq!(spec("--attention sparq:k=8:dense-below=9"), "sparq:k=8:dense-below=9");
}

/// A flag of its own is the same as its key in the notation: one value of each, for every method.
#[test]
fn flags_and_keys_say_the_same() {
    for flag in FLAGS.iter().filter(|flag| !SIZES.contains(&flag.flag)) {
        let (typed, value) = match flag.flag {
            NO_MEAN_VALUE => ("--no-mean-value".to_owned(), "off"),
            _ => {
                let words = key(flag.key).map(SpecKey::words).unwrap_or_default();
                let value = words.last().copied().unwrap_or("3");
                (format!("--{} {value}", flag.flag), value)
            }
        };
        for kind in MethodKind::ALL.into_iter().filter(|kind| *kind != MethodKind::Dense) {
            let by_flag = args(&format!("--attention {kind} {typed}"));
            let by_key = MethodSpec::from(kind).with(flag.key, value);
            match (by_flag, by_key) {
                (Ok(args), Ok(spec)) => assert_eq!(args.method.spec, spec, "{kind} {typed}"),
                (by_flag, by_key) => assert!(by_flag.is_err() && by_key.is_err(), "{kind} {typed}"),
            }
        }
    }
}

#[test]
fn what_has_no_effect_is_noted() {
    let notes = |flags: &str| args(flags).unwrap().notes(8);
    assert_eq!(
        notes("--attention dense --sparq-rank 4 --sparq-top-k 8 --dense-layers 1"),
        ["--sparq-rank, --sparq-top-k and --dense-layers have no effect with --attention dense"]
    );
    let one = notes("--attention dense --compression-ratio 8");
    assert_eq!(one, ["--compression-ratio has no effect with --attention dense"]);
    let all = notes("--dense-layers 99");
    assert_eq!(all, ["--dense-layers 99 covers all 8 layers of the model: all are attended densely"]);
    assert_eq!(notes("--dense-layers 7 --compression-ratio 8"), [""; 0]);
}

#[test]
fn contradictions_are_usage_errors_that_name_both_sides() {
    for (flags, expected) in [
        ("--sparq-rank 16", "--sparq-top-k"),
        ("--sparq-top-k 16", "--sparq-rank"),
        ("--dense-below never", "a whole number or auto is needed"),
        ("--compression-ratio 0.5", "a number of at least 1 is needed"),
        ("--attention sparse", "there is no such method"),
        ("--attention h2o:r=4", "h2o takes no `r`"),
        ("--profile a.json --attention h2o", "--attention"),
        ("--profile a.json --dense-layers 2", "--dense-layers"),
        ("--profile a.json --dense-below 2", "--dense-below"),
        (
            "--compression-ratio 8 --sparq-rank 16 --sparq-top-k 64",
            "--compression-ratio has no effect beside --sparq-rank and --sparq-top-k",
        ),
        ("--min-top-k 3 --sparq-rank 16 --sparq-top-k 64", "--min-top-k has no effect beside --sparq-top-k"),
        ("--attention sparq@8 --compression-ratio 4", "--compression-ratio and --attention both state `@`"),
        ("--attention sparq:r=4:k=8 --sparq-rank 4 --sparq-top-k 8", "both state `r`"),
        ("--attention h2o --no-mean-value", "--no-mean-value has no effect with --attention h2o"),
        ("--attention h2o --dense-below auto", "--dense-below has no effect with --attention h2o"),
        (
            "--attention sparq:r=4:k=8 --compression-ratio 4",
            "--compression-ratio has no effect with --attention sparq:r=4:k=8, which states all sizes",
        ),
        ("--attention h2o:k=8 --compression-ratio 4", "h2o:k=8, which states all sizes"),
        (
            "--attention sparq:k=8 --min-top-k 4",
            "--min-top-k has no effect with --attention sparq:k=8, which states k",
        ),
        (
            "--attention sparq@8 --sparq-rank 4 --sparq-top-k 8",
            "`@` of --attention sparq@8 has no effect beside --sparq-rank and --sparq-top-k",
        ),
        ("--attention quest --local-window 3", "--local-window has no effect with --attention quest"),
    ] {
        let error = args(flags).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{flags}");
        assert!(error.to_string().contains(expected), "{flags}: {error}");
    }
    assert!(args("--profile no-such-file.json").unwrap().resolve(false).is_err());
}

#[test]
fn the_help_shows_the_notation_and_hides_the_flags_that_it_replaces() {
    use clap::CommandFactory;
    let help = Cli::command().find_subcommand_mut("generate").unwrap().render_help().to_string();
    for shown in ["--attention", "--compression-ratio", "--dense-below", "--dense-layers", "--profile"] {
        assert!(help.contains(shown), "{shown} in {help}");
    }
    for hidden in FLAGS.iter().filter(|flag| flag.help.is_none()) {
        assert!(!help.contains(&format!("--{}", hidden.flag)), "{} in {help}", hidden.flag);
    }
}
