"""The parameters of the policy node; config/policy_node.yaml holds the same values."""

from vla_policy_node.nodes.parameters import Declared

PARAMETERS = (
    Declared(
        name='checkpoint', default='',
        description='Checkpoint directory with vla_config.json, or owner/name of the hub.'),
    Declared(
        name='device', default='cpu',
        description="Where the model runs: 'cpu', 'cuda' or 'cuda:<index>'."),
    Declared(
        name='quantization', default='nf4', choices=('none', 'nf4', 'int8'),
        description='Weights of the language model.'),
    Declared(
        name='quantize_vision', default=False,
        description='Quantise vision towers and projector too, where their shapes allow.'),
    Declared(
        name='dtype', default='bfloat16', choices=('bfloat16', 'float32', 'float16'),
        description='Type of everything that is not quantised.'),
    Declared(
        name='unnorm_key', default='',
        description='Whose norm_stats un-normalise actions; empty where there is just one.'),
    Declared(
        name='decoding', default='', choices=('', 'greedy', 'expectation', 'sample'),
        description="How bins are chosen; empty for the checkpoint's own choice."),
    Declared(
        name='temperature', default=1.0, minimum=0.01, maximum=100.0,
        description='Of decoding sample: below 1 keeps to what is likely, above 1 wanders.'),
    Declared(
        name='seed', default=0, minimum=0, maximum=1_000_000,
        description='Of decoding sample: the same one draws the same actions again.'),
    Declared(
        name='plan', default='checkpoint', choices=('checkpoint', 'off'),
        description='A plan before the action: as the checkpoint has it, or off if it has both.'),
    Declared(
        name='torch_num_threads', default=0, minimum=0, maximum=256,
        description='CPU threads of torch; 0 takes half of the processors.'),
    Declared(
        name='autostart', default=False,
        description='Configure and activate at start; a failure ends the process.'),
    Declared(
        name='image_transport', default='raw', choices=('raw', 'compressed'),
        description='raw: Image on ~/image; compressed: CompressedImage on ~/image/compressed.'),
    Declared(
        name='image_reliability', default='best_effort', choices=('best_effort', 'reliable'),
        description='Reliability of the camera subscriptions; best_effort hears every camera.'),
    Declared(
        name='image_timeout_s', default=0.25, minimum=0.01, maximum=10.0,
        description='Greatest age of a camera frame, by its stamp, when inference starts [s].'),
    Declared(
        name='max_clock_skew_s', default=0.05, minimum=0.0, maximum=1.0,
        description="How far in the future a camera frame's stamp may lie [s]."),
    Declared(
        name='image_wait_s', default=5.0, minimum=0.1, maximum=600.0,
        description='An instruction ends after so long without a fresh frame [s].'),
    Declared(
        name='rate_hz', default=0.0, minimum=0.0, maximum=1000.0,
        description="Greatest rate of inferences [Hz]; 0 for the action space's own period."),
    Declared(
        name='on_new_goal', default='preempt', choices=('preempt', 'refuse'),
        description='What happens to an instruction that comes while one is carried out.'),
    Declared(
        name='max_duration_s', default=60.0, minimum=0.1, maximum=3600.0,
        description='Longest time for an instruction whose goal names none [s].'),
    Declared(
        name='max_decode_failures', default=5, minimum=1, maximum=1000,
        description='So many failed decodes in a row end the instruction.'),
    Declared(
        name='max_new_tokens', default=32, minimum=1, maximum=4096,
        description='Longest answer of ~/ask whose request names none [tokens].'),
)
