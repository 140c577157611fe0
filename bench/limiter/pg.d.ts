/** What of pg the bench uses; the package brings no types. */
export interface PoolOptions {
  connectionString: string
  max: number
}

declare class Pool {
  constructor(options: PoolOptions)
  query(text: string): Promise<{ rows: Record<string, unknown>[] }>
  end(): Promise<void>
}

declare const pg: { Pool: typeof Pool }
export default pg
