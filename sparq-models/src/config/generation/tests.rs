use std::path::Path;

use serde_json::{Value, json};

use super::*;

fn read(json: &Value) -> GenerationConfig {
    GenerationConfig::from_fields(&ConfigFields::new(Path::new("m/generation_config.json"), json).unwrap())
}

#[test]
fn every_field_may_be_absent_or_null() {
    let absent = read(&json!({}));
    let source = Some("generation_config.json");
    assert_eq!(absent, GenerationConfig { source, ..GenerationConfig::default() });
    assert_eq!(absent.sampler(), SamplerConfig::default());
    let null = json!({
        "temperature": null, "top_k": null, "top_p": null, "do_sample": null, "eos_token_id": null,
        "stop_strings": null, "num_beams": null, "sequence_bias": null, "max_time": null
    });
    assert_eq!(read(&null), absent);
}

#[test]
fn fields_are_taken_over() {
    let config = read(&json!({
        "eos_token_id": [128001, 128008, 128009], "bos_token_id": 128000, "do_sample": true,
        "temperature": 0.5, "top_k": 40, "top_p": 0.75, "repetition_penalty": 1.25, "max_new_tokens": 7,
        "max_length": 20.0, "max_time": 1.5, "stop_strings": ["a", "b"], "min_new_tokens": 2,
        "exponential_decay_length_penalty": [3, 1.5], "sequence_bias": [[[1, 2], -1], [[1, 2], 2.5]],
        "bad_words_ids": [[4], [5, 6]], "forced_eos_token_id": 1, "suppress_tokens": [8.0]
    }));
    assert_eq!(config.notes, [] as [&str; 0]);
    assert_eq!(config.eos_token_ids, [128001, 128008, 128009]);
    assert_eq!((config.bos_token_id, config.do_sample), (Some(128000), Some(true)));
    assert_eq!((config.temperature, config.top_k), (Some(0.5), Some(40)));
    assert_eq!((config.top_p, config.repetition_penalty), (Some(0.75), Some(1.25)));
    assert_eq!((config.max_new_tokens, config.max_length), (Some(7), Some(20)));
    assert_eq!(config.max_time, Some(Duration::from_millis(1500)));
    assert_eq!(config.stop_strings, ["a", "b"]);
    let rules = &config.rules;
    assert_eq!((rules.min_new_tokens, rules.length_decay), (2, Some((3, 1.5))));
    assert_eq!(rules.sequence_bias, [(vec![1, 2], 2.5)]);
    assert_eq!(rules.bad_words_ids, [vec![4], vec![5, 6]]);
    assert_eq!((&rules.forced_eos_token_ids[..], &rules.suppress_tokens[..]), (&[1][..], &[8][..]));
    assert_eq!(read(&json!({"stop_strings": "end"})).stop_strings, ["end"]);
    assert_eq!(read(&json!({"top_k": 50.0})).top_k, Some(50));
}

#[test]
fn a_bad_value_is_left_out_with_a_note_that_names_file_and_field() {
    let absent = read(&json!({}));
    for (field, value) in [
        ("temperature", json!("0.7")),
        ("temperature", json!(-1)),
        ("temperature", json!(1e39)),
        ("temperature", json!([1])),
        ("temperature", json!(true)),
        ("top_p", json!(2.0)),
        ("top_p", json!(-0.5)),
        ("min_p", json!(1.5)),
        ("typical_p", json!(0)),
        ("epsilon_cutoff", json!(1)),
        ("eta_cutoff", json!(-0.1)),
        ("top_h", json!(0)),
        ("top_k", json!(0.5)),
        ("top_k", json!("50")),
        ("do_sample", json!("true")),
        ("repetition_penalty", json!(0)),
        ("repetition_penalty", json!(1e-60)),
        ("eos_token_id", json!(-1)),
        ("eos_token_id", json!("</s>")),
        ("eos_token_id", json!(4_294_967_296_u64)),
        ("bos_token_id", json!(-1)),
        ("bos_token_id", json!([0])),
        ("max_new_tokens", json!(0)),
        ("max_length", json!(-20)),
        ("min_length", json!(1.5)),
        ("max_time", json!("1s")),
        ("stop_strings", json!(3)),
        ("stop_strings", json!("")),
        ("stop_strings", json!([""])),
        ("bad_words_ids", json!([46])),
        ("bad_words_ids", json!([[]])),
        ("bad_words_ids", json!({})),
        ("sequence_bias", json!([[[46], "a"]])),
        ("sequence_bias", json!({"46": 1.0})),
        ("suppress_tokens", json!([-1])),
        ("forced_bos_token_id", json!([0])),
        ("exponential_decay_length_penalty", json!([1])),
        ("remove_invalid_values", json!(1)),
    ] {
        let config = read(&json!({field: value}));
        let [note] = &config.notes[..] else { panic!("{field} = {value}: {:?}", config.notes) };
        let start = format!("`m/generation_config.json`: field `{field}`: ");
        assert!(note.starts_with(&start) && note.contains("left out, expected"), "{note}");
        assert_eq!(GenerationConfig { notes: vec![], ..config }, absent, "{field} = {value}");
    }
}

#[test]
fn what_is_valid_of_a_list_stays() {
    let config = read(&json!({"eos_token_id": [1, null, -3, 7], "stop_strings": ["a", "", 3]}));
    assert_eq!((&config.eos_token_ids[..], &config.stop_strings[..]), (&[1, 7][..], &["a".to_owned()][..]));
    assert_eq!(config.notes.len(), 4);
    let null = |note: &String| note.contains("field `eos_token_id`: null is left out");
    assert!(config.notes.iter().any(null), "{:?}", config.notes);
}

#[test]
fn values_that_mean_off_elsewhere_are_off() {
    let config = read(&json!({"top_k": -1, "do_sample": true}));
    assert_eq!(config.sampler().top_k, 0);
    assert_eq!(config.notes, ["`m/generation_config.json`: field `top_k` is -1, which counts as off"]);
    // Nothing but the likeliest token, as in transformers.
    let config = read(&json!({"top_p": 0, "do_sample": true}));
    assert!(config.notes.is_empty() && config.sampler().validate().is_ok());
    assert!(config.top_p.unwrap() < 1e-30);
}

#[test]
fn what_is_not_honoured_is_named_once_with_its_value() {
    let config = read(&json!({
        "num_beams": 4, "penalty_alpha": 0.6, "guidance_scale": 2.0, "frequency_penalty": 0.5,
        "watermarking_config": {"bias": 2.0}, "dola_layers": "high", "temperature": 0.5,
        "transformers_version": "5.24.0", "pad_token_id": 0, "use_cache": true, "_from_model_config": true
    }));
    let [note] = &config.notes[..] else { panic!("{:?}", config.notes) };
    assert!(note.starts_with("`m/generation_config.json`: not honoured: "), "{note}");
    for part in [
        "num_beams = 4",
        "penalty_alpha = 0.6",
        "guidance_scale = 2.0",
        "frequency_penalty = 0.5",
        "watermarking_config = {\"bias\":2.0}",
        "dola_layers = \"high\"",
    ] {
        assert!(note.contains(part), "{part} in {note}");
    }
    for field in ["temperature", "transformers_version", "pad_token_id", "use_cache"] {
        assert!(!note.contains(field), "{note}");
    }
    let off = json!({
        "num_beams": 1, "penalty_alpha": 0, "guidance_scale": 1.0, "frequency_penalty": 0.0,
        "encoder_repetition_penalty": 1, "token_healing": false, "constraints": null, "dola_layers": ""
    });
    assert_eq!(read(&off).notes, [] as [&str; 0]);
}

#[test]
fn long_names_and_values_are_shortened_and_have_no_control_characters() {
    let long = "x".repeat(1000);
    let config = read(&json!({"\u{1b}[31mred": long, "temperature": "\u{9b}31m"}));
    for note in &config.notes {
        assert!(note.chars().count() < 200 && !note.contains(char::is_control), "{note:?}");
    }
    assert_eq!(config.notes.len(), 2);
}

#[test]
fn without_a_file_of_their_own_settings_come_from_the_configuration() {
    let json = json!({
        "model_type": "llama", "hidden_size": 64, "eos_token_id": 2, "bos_token_id": [1],
        "do_sample": true, "temperature": 0.5, "num_beams": 2
    });
    let fields = ConfigFields::new(Path::new("m/config.json"), &json).unwrap();
    let config = GenerationConfig::from_model_config(&fields).with_config_ends(&fields);
    assert_eq!((config.sampler().temperature, config.source), (0.5, Some("config.json")));
    assert_eq!(config.notes, ["`m/config.json`: not honoured: num_beams = 2"]);
    assert_eq!((config.eos_ids(), config.eos_token_ids.len()), (vec![2], 0));
    let plain = json!({"model_type": "llama", "hidden_size": 64, "eos_token_id": [2, -1]});
    let fields = ConfigFields::new(Path::new("m/config.json"), &plain).unwrap();
    let config = GenerationConfig::from_model_config(&fields).with_config_ends(&fields);
    assert_eq!((config.source, config.eos_ids(), config.notes.len()), (None, vec![2], 1));
    // Both files name ends: all of them count.
    let config = read(&json!({"eos_token_id": [9, 2]})).with_config_ends(&fields);
    assert_eq!(config.eos_ids(), [2, 9]);
}

#[test]
fn many_biases_are_read_in_no_time() {
    let pairs: Vec<Value> = (0..100_000).map(|id| json!([[id, id + 1], 0.5])).collect();
    let again = [json!([[7, 8], -2.0]), json!([[9, 10], 1.0])];
    let pairs = [pairs, again.to_vec()].concat();
    let config = read(&json!({"sequence_bias": pairs}));
    let biases = &config.rules.sequence_bias;
    assert_eq!((biases.len(), &biases[7], &biases[9]), (100_000, &(vec![7, 8], -2.0), &(vec![9, 10], 1.0)));
}
