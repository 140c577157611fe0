-- What: pg_cron, with the rights a hosted project gives.
-- Why: jobs of the migrations run as they will there. Only the one database named by `cron.database_name` can have it.
-- Who: `postgres` schedules with cron.schedule() and reads cron.job; API roles may do nothing here.

create extension if not exists pg_cron with schema pg_catalog;

grant usage on schema cron to postgres with grant option;

grant all on all functions in schema cron to postgres with grant option;

grant all on all tables in schema cron to postgres with grant option;

revoke all on table cron.job from postgres;

grant select on table cron.job to postgres with grant option;
