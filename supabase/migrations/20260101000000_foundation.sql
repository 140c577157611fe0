-- What: the ground every other chapter stands on: our schemas, who is an admin, and the stamping of times.
-- Why: rules that many tables share are written once and called by name.
-- Who: anybody may ask whether they are an admin; nothing here changes data.

create extension if not exists pgcrypto with schema extensions;

-- pg_cron runs the schedules. Where it cannot be had, the platform supplies the same `cron` schema.
do $$
begin
    if exists (select from pg_catalog.pg_available_extensions where name = 'pg_cron') then
        create extension if not exists pg_cron with schema pg_catalog;
    end if;
    if exists (select from pg_catalog.pg_available_extensions where name = 'pg_net') then
        create extension if not exists pg_net;
    end if;
end;
$$;

-- A function is executable by everybody as soon as it exists, unless this is said first.
alter default privileges revoke execute on functions from public;

create schema if not exists holdfast;

comment on schema holdfast is
    'What Holdfast itself keeps. Not exposed through the API; admins read it in Studio, functions by SQL.';

create schema if not exists private;

comment on schema private is
    'The application''s functions that run with more rights than their caller. Not exposed through the API: '
    'only an edge function, by SQL and in the caller''s name, reaches them. The whole list is this schema.';

revoke all on schema holdfast, private from public;

grant usage on schema holdfast to anon, authenticated, service_role;

grant usage on schema private to authenticated, service_role;


-- In plpgsql, whose plan a session keeps: every policy asks this, and SQL would be planned for each statement anew.
create or replace function holdfast.is_admin()
returns boolean
language plpgsql
stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
    return coalesce(auth.jwt() -> 'app_metadata' ->> 'role' = 'admin', false);
end;
$$;

comment on function holdfast.is_admin() is
    'Whether the caller''s JWT says app_metadata.role = "admin". Users cannot write app_metadata; '
    'the platform''s admin API and SQL can.';

grant execute on function holdfast.is_admin() to anon, authenticated, service_role;


create or replace function holdfast.stamp_times()
returns trigger
language plpgsql
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
    if tg_op = 'INSERT' then
        new.created_at := pg_catalog.now();
    else
        new.created_at := old.created_at;
    end if;
    new.updated_at := pg_catalog.now();
    return new;
end;
$$;

comment on function holdfast.stamp_times() is
    'Row trigger: created_at is the time of the insert and never changes, updated_at the time of the last write. '
    'Both by the database''s clock, whatever the statement says.';
