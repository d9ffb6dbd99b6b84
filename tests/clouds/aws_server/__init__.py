"""A small EC2 image service and EBS direct API, with moto's S3, IAM, STS and SSM behind them.

Runs in an environment with moto: `python -m tests.clouds.aws_server PORT DIRECTORY`. It holds what
it is told in memory, and disks as sparse files in DIRECTORY. EC2 and EBS are written after
botocore's own models and the documentation's rules, which moto does not enforce: names, states,
checksums, idempotency tokens, encryption, what may be shared or deleted when.

It does not prove: signatures and IAM policies (keys are known or not, actions are denied by name),
the exact words and codes of rarer errors, how long AWS takes, eventual consistency beyond what a
test asks for by a fault, whether an image boots, limits of requests per second.
"""
