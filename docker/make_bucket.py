"""Makes the bucket that `MLFLOW_ARTIFACTS_DESTINATION` names, unless it is there.

Runs once, in the image of the MLflow server, before that server starts. It asks the S3 interface and not the
store behind it, so that it fits any store.
"""

from __future__ import annotations

import os
from urllib.parse import urlsplit

import boto3
from botocore.exceptions import ClientError


def main() -> None:
    """Reads the address, the keys and the bucket from the variables that MLflow reads."""
    bucket = urlsplit(os.environ["MLFLOW_ARTIFACTS_DESTINATION"]).netloc
    store = boto3.client("s3", endpoint_url=os.environ["MLFLOW_S3_ENDPOINT_URL"])
    try:
        store.head_bucket(Bucket=bucket)
    except ClientError as error:
        if error.response["Error"]["Code"] != "404":
            raise
        store.create_bucket(Bucket=bucket)


if __name__ == "__main__":
    main()
