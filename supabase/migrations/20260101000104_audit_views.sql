-- What: views for Studio: what changed lately, by whom, in which table; what is audited, and what could not be recorded.
-- Why: the questions of every day, one click each.
-- Who: `postgres`, who Studio asks as. The API roles have no right on any of them.

create or replace function audit.recently()
returns timestamptz
language sql
stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
    select now() - interval '7 days'
$$;

comment on function audit.recently() is 'How far back the views look. Asked by a subselect, so that it is computed once.';


create view audit.recent_changes
with (security_invoker = on)
as
select c.*
from audit.changes as c
where c.occurred_at >= (select audit.recently())
order by c.id desc;

comment on view audit.recent_changes is 'Every change of the last 7 days, newest first.';


create view audit.changes_by_person
with (security_invoker = on)
as
select
    coalesce(audit.email_of(c.actor_id), c.actor_id::text, c.name) as actor,
    c.actor_id,
    c.actor_role,
    c.changes,
    c.tables,
    c.first_at,
    c.last_at
from (
    select
        d.actor_id,
        d.actor_role,
        case when d.actor_id is null then coalesce(d.details ->> 'actor', d.actor_role) end as name,
        count(*) as changes,
        array_agg(distinct d.object_identity order by d.object_identity) as tables,
        min(d.occurred_at) as first_at,
        max(d.occurred_at) as last_at
    from audit.database_changes as d
    where d.occurred_at >= (select audit.recently())
    group by 1, 2, 3
) as c
order by c.changes desc;

comment on view audit.changes_by_person is
    'Who changed how much in the last 7 days, and where. Where nobody was signed in, the role stands for the person.';


create view audit.changes_by_table
with (security_invoker = on)
as
select
    c.object_identity,
    count(*) as changes,
    count(*) filter (where c.operation = 'INSERT') as inserts,
    count(*) filter (where c.operation = 'UPDATE') as updates,
    count(*) filter (where c.operation = 'DELETE') as deletes,
    count(*) filter (where c.operation = 'TRUNCATE') as truncates,
    count(distinct c.actor_id) as people,
    max(c.occurred_at) as last_at
from audit.database_changes as c
where c.occurred_at >= (select audit.recently())
and c.operation in ('INSERT', 'UPDATE', 'DELETE', 'TRUNCATE')
group by c.object_identity
order by changes desc;

comment on view audit.changes_by_table is 'Where the last 7 days changed how much, by how many signed-in people.';


create view audit.recent_events
with (security_invoker = on)
as
select
    c.id,
    c.occurred_at,
    c.actor,
    c.action,
    c.object_identity as resource_type,
    c.primary_key as resource_id,
    c.details #> '{event,changes}' as changes,
    c.details #> '{event,metadata}' as metadata,
    c.ip,
    c.request_id,
    c.function_name
from audit.changes as c
where c.occurred_at >= (select audit.recently())
and c.operation = 'EVENT'
order by c.id desc;

comment on view audit.recent_events is 'What audit.record and sign-ins told in the last 7 days, newest first.';


create view audit.recent_schema_changes
with (security_invoker = on)
as
select
    c.id,
    c.occurred_at,
    c.actor,
    c.details #>> '{ddl,command}' as command,
    c.details #>> '{ddl,object_type}' as object_type,
    c.details #>> '{ddl,object}' as object,
    c.details #>> '{ddl,statement}' as statement
from audit.changes as c
where c.occurred_at >= (select audit.recently())
and c.operation = 'DDL'
order by c.id desc;

comment on view audit.recent_schema_changes is 'DDL of the last 7 days, newest first.';


create view audit.unrecorded
with (security_invoker = on)
as
select g.*
from audit.gaps as g
order by g.id desc;

comment on view audit.unrecorded is 'What could not be recorded and why, newest first. Should be empty.';


create view audit.audited_tables
with (security_invoker = on)
as
select
    audit.identity_of(c.oid) as object_identity,
    coalesce(t.enabled, false) as audited,
    t.leave_out,
    t.mask,
    t.whole_row,
    exists (select from pg_catalog.pg_index as i where i.indrelid = c.oid and i.indisprimary) as has_key
from pg_catalog.pg_class as c
left join audit.tables as t on t.table_oid = c.oid
where c.relkind in ('r', 'p')
and (
    t.id is not null
    or c.relnamespace::regnamespace::text in (select unnest(s.schemas) from audit.settings as s)
)
order by audited, object_identity;

comment on view audit.audited_tables is
    'Every table of the application and whether it is audited, those that are not first. Without a key the changes of a '
    'table cannot be told apart by row.';
