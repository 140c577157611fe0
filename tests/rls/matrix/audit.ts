/** Schema `audit`: nobody touches the trail itself; admins ask functions that answer admins alone. */
import {
  each,
  nobody,
  noRole,
  noWrites,
  type RouteRules,
  signedIn,
  type TableRules,
  type Uses,
} from './rules.ts'

function closed(about: string): TableRules {
  return { about, select: nobody, ...noWrites }
}

const onlyAdmins: Uses = { ...noRole, admin: 'may' }

/** For `postgres` alone: in Studio, by pg_cron, and by functions that run with its rights. */
export const auditTables: Record<string, TableRules> = {
  'audit.database_changes': closed('Who changed what. Partitioned by month.'),
  'audit.gaps': closed('What could not be recorded, counted.'),
  'audit.seals': closed('The chain of hashes over the trail.'),
  'audit.retired_months': closed('Months whose rows are gone, with their last hash.'),
  'audit.settings': closed('How the trail is kept.'),
  'audit.tables': closed('Which tables are audited, and how.'),
  'audit.changes': closed('View: the trail in plain words.'),
  'audit.recent_changes': closed('View: changes of the last days.'),
  'audit.changes_by_person': closed('View: how much each person has changed.'),
  'audit.changes_by_table': closed('View: how much has changed in each table.'),
  'audit.recent_events': closed('View: what was recorded that is no change of a row.'),
  'audit.recent_schema_changes': closed('View: changes of the schema.'),
  'audit.unrecorded': closed('View: the gaps in plain words.'),
  'audit.audited_tables': closed('View: the audited tables in plain words.'),
}

export const auditSequences: Record<string, Uses> = each(noRole, [
  'audit.change_ids',
  'audit.gap_ids',
  'audit.tables_id_seq',
])

const forAdmins = [
  'audit.by_actor(text,timestamp with time zone,timestamp with time zone,integer)',
  'audit.by_actor(uuid,timestamp with time zone,timestamp with time zone,integer)',
  'audit.diff(bigint)',
  'audit.diff(regclass,anyelement,timestamp with time zone,timestamp with time zone)',
  'audit.diff(text,text,timestamp with time zone,timestamp with time zone)',
  'audit.find_changes(jsonb,integer,bigint)',
  'audit.head()',
  'audit.row_history(regclass,anyelement)',
  'audit.row_history(regclass,text)',
  'audit.row_history(text,text)',
  'audit.verify(timestamp with time zone,timestamp with time zone,bytea)',
]

/** Called by triggers, by pg_cron, and by `postgres` in the SQL editor. */
const internal = [
  'audit.sounds_secret(text)',
  'audit.statement()',
  'audit.add_to_chain(audit.seals)',
  'audit.address_code(integer)',
  'audit.append_only()',
  'audit.change_digests(date,int8multirange)',
  'audit.changed_values(jsonb)',
  'audit.check_filters(jsonb)',
  'audit.cluster_id()',
  'audit.column_code(audit.tables)',
  'audit.count_gap(text,text,text,text)',
  'audit.details_code(audit.tables,text)',
  'audit.disable(regclass)',
  'audit.drop_expired_partitions()',
  'audit.email_of(uuid)',
  'audit.enable(regclass,text[],text[],boolean)',
  'audit.enable_platform()',
  'audit.filter_time(jsonb,text)',
  'audit.find_change_ids(jsonb,integer,bigint)',
  'audit.fingerprint(audit.tables)',
  'audit.first_broken_change(audit.seals)',
  'audit.first_broken_link()',
  'audit.first_unknown_change(timestamp with time zone,timestamp with time zone)',
  'audit.former_key(oid,jsonb)',
  'audit.forwarded_for(text,integer)',
  'audit.generate(regclass)',
  'audit.guard_partition(regclass)',
  'audit.hash_changes(date,int8multirange)',
  'audit.history_end(oid,text[],text,bigint)',
  'audit.history_ids(text,text)',
  'audit.holds_json(oid)',
  'audit.identity_of(oid)',
  'audit.insert_code(audit.tables,text,text,text)',
  'audit.is_generated(text)',
  'audit.join_code(text[])',
  'audit.json_text(json)',
  'audit.keep_seals()',
  'audit.key_code(oid,text)',
  'audit.key_columns(oid)',
  'audit.key_text(oid,text)',
  'audit.make_partitions(integer)',
  'audit.month_is_there(date)',
  'audit.month_name(date)',
  'audit.month_of(timestamp with time zone)',
  'audit.name_default_partition()',
  'audit.nth_name(oid)',
  'audit.note_reading(text,jsonb)',
  'audit.open_gaps()',
  'audit.partition_name(date)',
  'audit.partition_range(oid)',
  'audit.readable_ip(text)',
  'audit.readable_json(text)',
  'audit.readable_request()',
  'audit.recently()',
  'audit.record_ddl()',
  'audit.record_drop()',
  'audit.record_session()',
  'audit.refresh(oid[])',
  'audit.refuse_filter(text,text)',
  'audit.renamed(text[],jsonb,jsonb)',
  'audit.require_history(text,oid)',
  'audit.require_reader()',
  'audit.retire_seals(date,interval)',
  'audit.retirement_hash(audit.retired_months)',
  'audit.retirement_problem()',
  'audit.row_code(audit.tables,text)',
  'audit.row_exists(oid,text)',
  'audit.seal(bigint)',
  'audit.seal_hash(audit.seals)',
  'audit.see_gaps(text)',
  'audit.stale_tables(oid[])',
  'audit.trigger_code(audit.tables)',
  'audit.unsealed_changes(bigint)',
  'audit.users_named(text)',
  'audit.watch()',
  'audit.with_oddities(text)',
  'audit.worth_recording(audit.tables)',
  'audit.writer()',
]

export const auditFunctions: Record<string, Uses> = {
  'audit.record(text,text,text,jsonb,jsonb)': { ...signedIn, service_role: 'may' },
  ...each(onlyAdmins, forAdmins),
  ...each(noRole, internal),
}

/** One for each audited table, made when its auditing is enabled; `*` is its number. */
export const auditGeneratedFunctions: Record<string, Uses> = each(noRole, ['audit.record_*()'])

export const auditRoutes: Record<string, RouteRules> = {
  'GET /admin/audit': {
    about: 'Shows the trail to signed-in admins. The secret key is nobody.',
    writes: false,
    status: { anon: 401, owner: 403, other: 403, admin: 200, service_role: 401 },
  },
}
