-- Runs once, as the superuser, when the data volume is empty.
-- MLflow and Optuna both own a table `alembic_version`: two databases keep them apart.
\getenv mlflow_password MLFLOW_DB_PASSWORD
\getenv platform_password PLATFORM_DB_PASSWORD

CREATE ROLE mlflow LOGIN PASSWORD :'mlflow_password';
CREATE ROLE platform LOGIN PASSWORD :'platform_password';

CREATE DATABASE mlflow OWNER mlflow;
CREATE DATABASE platform OWNER platform;
REVOKE CONNECT ON DATABASE mlflow, platform FROM PUBLIC;

-- The studies and the ledger have a schema each, the names that the platform asks for.
\connect platform
CREATE SCHEMA studies AUTHORIZATION platform;
CREATE SCHEMA ledger AUTHORIZATION platform;
