/** A connection to the database of a stage. */
import { connect, type Sql } from '../../local/postgres/connect.ts'
import type { DemoContext } from './demo.ts'

/** One connection; it ends with the demo. */
export function openSql({ resources }: Pick<DemoContext, 'resources'>, url: string): Sql {
  return resources.adopt(connect(url, 'demo'), (sql) => sql.end({ timeout: 2 }))
}
