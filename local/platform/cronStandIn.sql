-- What: a stand-in for pg_cron 1.6: cron.schedule(), unschedule(), alter_job(), schedule_in_database(), job, job_run_details.
-- Why: npm's PostgreSQL has no pg_cron, and pg_cron itself serves one database of a server; a runner beside it runs the jobs.
-- Who: `postgres` schedules and reads, as on a hosted project; API roles may do nothing here.

create schema if not exists cron;

create sequence if not exists cron.jobid_seq;

create sequence if not exists cron.runid_seq;

create table if not exists cron.job (
    jobid bigint not null default pg_catalog.nextval('cron.jobid_seq'),
    schedule text not null,
    command text not null,
    nodename text not null default 'localhost',
    nodeport integer not null default pg_catalog.inet_server_port(),
    database text not null default pg_catalog.current_database(),
    username text not null default current_user,
    active boolean not null default true,
    jobname text,
    constraint job_pkey primary key (jobid),
    constraint jobname_username_uniq unique (jobname, username)
);

create table if not exists cron.job_run_details (
    jobid bigint,
    runid bigint not null default pg_catalog.nextval('cron.runid_seq'),
    job_pid integer,
    database text,
    username text,
    command text,
    status text,
    return_message text,
    start_time timestamptz,
    end_time timestamptz,
    constraint job_run_details_pkey primary key (runid)
);

alter table cron.job enable row level security;

alter table cron.job_run_details enable row level security;

drop policy if exists cron_job_policy on cron.job;

create policy cron_job_policy on cron.job
    using (username = current_user);

drop policy if exists cron_job_run_details_policy on cron.job_run_details;

create policy cron_job_run_details_policy on cron.job_run_details
    using (username = current_user);

-- Tells the runner that its list of jobs is out of date; it hears of it at commit.
create or replace function cron.job_cache_invalidate()
returns trigger
language plpgsql
set search_path = ''
as $$
begin
    perform pg_catalog.pg_notify('holdfast_cron', '');
    return null;
end;
$$;

create or replace trigger cron_job_cache_invalidate
    after insert or update or delete or truncate on cron.job
    for each statement
    execute function cron.job_cache_invalidate();

-- One of the five fields: `*`, numbers or names, ranges, lists and steps of them.
create or replace function cron._is_field(p_field text, p_low integer, p_high integer, p_names text)
returns boolean
language plpgsql
immutable
set search_path = ''
as $$
declare
    v_part text;
    v_match text[];
    v_bound text;
begin
    foreach v_part in array pg_catalog.string_to_array(p_field, ',')
    loop
        v_match := pg_catalog.regexp_match(v_part, '^(\*|\w+(?:-\w+)?)(?:/(\d{1,4}))?$');
        if v_match is null or v_match[2]::integer = 0 then
            return false;
        end if;
        if v_match[1] <> '*' then
            foreach v_bound in array pg_catalog.string_to_array(v_match[1], '-')
            loop
                if v_bound ~ '^\d{1,4}$' then
                    if v_bound::integer not between p_low and p_high then
                        return false;
                    end if;
                elsif pg_catalog.lower(v_bound) !~ ('^(' || p_names || ')$') then
                    return false;
                end if;
            end loop;
        end if;
    end loop;
    return p_field <> '';
end;
$$;

-- pg_cron's syntax: five fields (`$` is the last day of the month), `N seconds` with N from 1 to 59, or a word like @daily.
create or replace function cron._is_schedule(p_schedule text)
returns boolean
language plpgsql
immutable
set search_path = ''
as $$
declare
    v_text text := pg_catalog.btrim(p_schedule, E' \t');
    v_fields text[] := pg_catalog.regexp_split_to_array(v_text, '[ \t]+');
begin
    if v_text ~* '^[1-5]?[0-9][ \t]+seconds?$' then
        return pg_catalog.split_part(v_text, ' ', 1)::integer >= 1;
    end if;
    if v_text ~* '^@(reboot|yearly|annually|monthly|weekly|daily|midnight|hourly)$' then
        return true;
    end if;
    return pg_catalog.cardinality(v_fields) = 5
        and cron._is_field(v_fields[1], 0, 59, '-')
        and cron._is_field(v_fields[2], 0, 23, '-')
        and (v_fields[3] = '$' or cron._is_field(v_fields[3], 1, 31, '-'))
        and cron._is_field(v_fields[4], 1, 12, 'jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec')
        and cron._is_field(v_fields[5], 0, 7, 'sun|mon|tue|wed|thu|fri|sat');
end;
$$;

create or replace function cron._check_schedule(p_schedule text)
returns void
language plpgsql
immutable
set search_path = ''
as $$
begin
    if p_schedule is null then
        raise exception 'schedule can not be NULL';
    end if;
    if not cron._is_schedule(p_schedule) then
        raise exception using
            errcode = 'invalid_parameter_value',
            message = pg_catalog.format('invalid schedule: %s', p_schedule),
            hint = 'Use cron format (e.g. 5 4 * * *), or interval format ''[1-59] seconds''';
    end if;
end;
$$;

-- Runs as its owner, for cron.job is read-only to all others; the callers below hand in who asked.
create or replace function cron._put_job(
    p_name text,
    p_schedule text,
    p_command text,
    p_database text,
    p_username text,
    p_active boolean
)
returns bigint
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
    v_id bigint;
begin
    perform cron._check_schedule(p_schedule);
    if p_command is null then
        raise exception 'command can not be NULL';
    end if;
    if not pg_catalog.has_database_privilege(p_username::name, p_database, 'connect') then
        raise exception 'User % does not have CONNECT privilege on %', p_username, p_database;
    end if;

    insert into cron.job as known (jobname, schedule, command, database, username, active)
    values (p_name, p_schedule, p_command, p_database, p_username, p_active)
    on conflict on constraint jobname_username_uniq do update
    set schedule = excluded.schedule,
        command = excluded.command,
        database = excluded.database
    returning known.jobid
    into v_id;
    return v_id;
end;
$$;

-- The interface, with pg_cron's names of parameters.
create or replace function cron.schedule(schedule text, command text)
returns bigint
language sql
volatile
strict
set search_path = ''
as $$
    select cron._put_job(null, schedule, command, current_database(), current_user, true)
$$;

create or replace function cron.schedule(job_name text, schedule text, command text)
returns bigint
language plpgsql
volatile
set search_path = ''
as $$
begin
    if job_name is null then
        raise exception 'job_name can not be NULL';
    end if;
    return cron._put_job(job_name, schedule, command, current_database(), current_user, true);
end;
$$;

create or replace function cron.schedule_in_database(
    job_name text,
    schedule text,
    command text,
    database text,
    username text default null,
    active boolean default true
)
returns bigint
language plpgsql
volatile
set search_path = ''
as $$
begin
    if job_name is null then
        raise exception 'job_name can not be NULL';
    end if;
    if username is not null and current_setting('is_superuser') <> 'on' then
        raise exception 'must be superuser to create a job for another role';
    end if;
    return cron._put_job(
        job_name, schedule, command, database, coalesce(username, current_user), coalesce(active, true)
    );
end;
$$;

create or replace function cron._drop_job(p_id bigint, p_name text, p_username text)
returns boolean
language plpgsql
volatile
security definer
set search_path = ''
as $$
begin
    delete from cron.job as known
    where known.username = p_username
    and (known.jobid = p_id or known.jobname = p_name);
    if not found then
        raise exception 'could not find valid entry for job ''%''', coalesce(p_name, p_id::text);
    end if;
    return true;
end;
$$;

create or replace function cron.unschedule(job_id bigint)
returns boolean
language sql
volatile
strict
set search_path = ''
as $$
    select cron._drop_job(job_id, null, current_user)
$$;

create or replace function cron.unschedule(job_name text)
returns boolean
language sql
volatile
strict
set search_path = ''
as $$
    select cron._drop_job(null, job_name, current_user)
$$;

create or replace function cron._change_job(
    p_id bigint,
    p_schedule text,
    p_command text,
    p_database text,
    p_username text,
    p_active boolean,
    p_owner text
)
returns void
language plpgsql
volatile
security definer
set search_path = ''
as $$
begin
    if p_schedule is not null then
        perform cron._check_schedule(p_schedule);
    end if;
    update cron.job as known
    set schedule = coalesce(p_schedule, known.schedule),
        command = coalesce(p_command, known.command),
        database = coalesce(p_database, known.database),
        username = coalesce(p_username, known.username),
        active = coalesce(p_active, known.active)
    where known.jobid = p_id
    and known.username = p_owner;
    if not found then
        raise exception 'Job % does not exist or you don''t own it', p_id;
    end if;
end;
$$;

create or replace function cron.alter_job(
    job_id bigint,
    schedule text default null,
    command text default null,
    database text default null,
    username text default null,
    active boolean default null
)
returns void
language plpgsql
volatile
set search_path = ''
as $$
begin
    if job_id is null then
        raise exception 'job_id can not be NULL';
    end if;
    if username is not null and current_setting('is_superuser') <> 'on' then
        raise exception 'must be superuser to alter username';
    end if;
    perform cron._change_job(job_id, schedule, command, database, username, active, current_user);
end;
$$;

revoke all on all functions in schema cron from public;

grant usage on schema cron to postgres with grant option;

grant execute on all functions in schema cron to postgres;

-- These take the caller's name as an argument; only the interface, which fills it in truly, may lead to them. It runs
-- with its caller's rights, so the caller must be able to execute them: `postgres` alone is.
grant execute on function
    cron.schedule(text, text),
    cron.schedule(text, text, text),
    cron.schedule_in_database(text, text, text, text, text, boolean),
    cron.unschedule(bigint),
    cron.unschedule(text),
    cron.alter_job(bigint, text, text, text, text, boolean)
to postgres with grant option;

grant all on table cron.job_run_details to postgres with grant option;

grant select on table cron.job to postgres with grant option;

grant usage, select on all sequences in schema cron to postgres;

select pg_temp.stand_in_extension('pg_cron', '1.6', 'pg_catalog', 'cron');
