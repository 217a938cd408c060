"""Create the bucket for MLflow's artefacts if it is missing: python make_bucket.py NAME. Waits for the store.

The store's address and credentials come from AWS's usual variables (AWS_ENDPOINT_URL, AWS_SHARED_CREDENTIALS_FILE).
"""

import sys
import time

import boto3
from botocore.exceptions import BotoCoreError, ClientError

SECONDS = 120


def main(name: str) -> int:
    limit = time.monotonic() + SECONDS
    while True:
        try:
            store = boto3.client("s3")
            if name in {bucket["Name"] for bucket in store.list_buckets()["Buckets"]}:
                print(f"bucket {name}: there")
            else:
                store.create_bucket(Bucket=name)
                print(f"bucket {name}: created")
            return 0
        except (BotoCoreError, ClientError) as error:
            if time.monotonic() > limit:
                print(f"bucket {name}: the store can't be used: {' '.join(str(error).split())}", file=sys.stderr)
                return 1
        time.sleep(2)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: make_bucket.py NAME")
    sys.exit(main(sys.argv[1]))
